"""The records over Channel Access, as clients older than PVAccess know them; served by caproto.

Imported only where caproto is installed.
"""

# The library has no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Iterable
from typing import Any, cast

from caproto import (
    AccessRights,
    AlarmStatus,
    ChannelChar,
    ChannelDouble,
    ChannelEnum,
    ChannelInteger,
    ChannelString,
    Forbidden,
    SkipWrite,
)
from caproto.asyncio.server import Context

from pvapy_stream.areadetector.plugin_records import Value
from pvapy_stream.areadetector.records import LONGEST_TEXT, PATIENCE, Record
from pvapy_stream.errors import ObjectError, TransportError
from pvapy_stream.pva.net.server_channel import Put
from pvapy_stream.pva.wire.status import Status
from pvapy_stream.pva.wire.types import Kind

# Texts that areaDetector has as arrays of characters; the others have 39 characters at most.
_LONG_TEXTS = frozenset(
    {
        "FilePath", "FileName", "FileTemplate", "FullFileName_RBV", "WriteMessage", "XMLFileName",
        "XMLErrorMsg_RBV", "NDAttributesFile",
    }
)  # fmt: skip
_SHORT_TEXT = 39
_DIMENSIONS = 10
_STARTS = 30.0  # s
_ENDS = 5.0  # s
_VALUE_BITS = 0b1111  # of a put of the value, for each type of record

_log = logging.getLogger(__name__)


class CaServer:
    """Serves records over Channel Access, in a thread of its own.

    Addresses and ports are those of the ``EPICS_CAS_*`` and ``EPICS_CA_*`` variables.

    Args:
        records: under the names of their channels.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        # It logs a traceback for each put that is refused, which the plugin logs too, and for each
        # beacon for which no client listens.
        logging.getLogger("caproto").setLevel(logging.CRITICAL)
        self._loop = asyncio.new_event_loop()
        self._changes: asyncio.Queue[tuple[Any, Value, int]] = asyncio.Queue()
        self._channels: dict[str, Any] = {}
        self._serving: asyncio.Task[None] | None = None
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="channel access", daemon=True)
        for record in records:
            self._add(record)

    def _add(self, record: Record) -> None:
        made: Any = None

        def changed(value: Value, severity: int) -> None:
            # When it was stopped, the loop is closed.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._changes.put_nowait, (made, value, severity))

        record.on_change = changed
        made = _channel(record)
        name = record.channel.name
        self._channels[name] = self._channels[f"{name}.VAL"] = made

    def start(self) -> None:
        """Serve; returns when clients can connect.

        Raises:
            TransportError: the port or an address cannot be used.
        """
        self._thread.start()
        began = self._started.wait(_STARTS)
        failure = self._failure
        if failure is not None or not began:
            # Its cause says more, if it has one.
            why = "the server does not start" if failure is None else failure.__cause__ or failure
            raise TransportError(
                f"the records cannot be served over Channel Access: {why}; see"
                " EPICS_CAS_INTF_ADDR_LIST and EPICS_CA_SERVER_PORT"
            ) from failure

    def stop(self) -> None:
        """Close all connections. Puts that wait fail."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._cancel)
        self._thread.join(_ENDS)

    def _cancel(self) -> None:
        if self._serving is not None:
            self._serving.cancel()

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except Exception as error:
            self._failure = error
            if self._started.is_set():
                _log.exception("the records are not served over Channel Access any more")
        finally:
            self._started.set()
            self._loop.close()

    async def _serve(self) -> None:
        async def begun(_: object) -> None:
            self._started.set()

        writing = asyncio.create_task(self._write_changes())
        self._serving = asyncio.create_task(Context(self._channels).run(startup_hook=begun))
        try:
            await self._serving
        finally:
            writing.cancel()

    async def _write_changes(self) -> None:
        while True:
            channel, value, severity = await self._changes.get()
            try:
                await channel.show(value, severity)
            except Exception:
                # The other records must go on.
                _log.exception("a value cannot be shown over Channel Access")


class _Served:
    """What our channels add to those of caproto."""

    def __init__(self, *, record: Record, **about: Any) -> None:
        self._record = record
        super().__init__(value=self._form(record.value), **about)  # type: ignore[call-arg]

    def _form(self, value: Value) -> Any:
        """A value of the record, as caproto has it."""
        if self._record.choices:
            return self._record.choices[cast("int", value)]
        if isinstance(value, str) and self._record.field.name not in _LONG_TEXTS:
            return value.encode()[:_SHORT_TEXT].decode(errors="ignore")
        if isinstance(value, int):
            # An id with more than 32 bits starts again, as those of areaDetector do.
            return (value + (1 << 31)) % (1 << 32) - (1 << 31)
        return value

    async def show(self, value: Value, severity: int) -> None:
        """Show a new value of the record."""
        status = AlarmStatus.WRITE if severity else AlarmStatus.NO_ALARM
        await self.write(  # type: ignore[attr-defined]
            self._form(value), verify_value=False, severity=severity, status=status
        )

    def check_access(self, hostname: str, username: str) -> Any:
        writable = self._record.channel.on_put is not None
        return AccessRights.READ | AccessRights.WRITE if writable else AccessRights.READ

    async def auth_write(
        self, hostname: str, username: str, *args: Any, user_address: Any = None, **options: Any
    ) -> Any:
        # A client may claim any name of its host.
        if not self._record.channel.may_put(username, user_address[0]):
            raise Forbidden(f"{self._record.channel.name}: {username} may not put")
        return await super().auth_write(  # type: ignore[misc]
            hostname, username, *args, user_address=user_address, **options
        )

    async def verify_value(self, data: Any) -> Any:
        """Give what a client puts to the plugin; the record shows what became of it."""
        status = await _put(self._record, self._given(data))
        if not status.done:
            raise ObjectError(status.text)
        raise SkipWrite

    def _given(self, data: Any) -> Value:
        choices = self._record.choices
        if not choices:
            return data if isinstance(data, str) else data.item() if hasattr(data, "item") else data
        if isinstance(data, str):
            if data not in choices:
                raise self._record.no_choice(repr(data[:80]))
            return choices.index(data)
        return int(data)


class _Enum(_Served, ChannelEnum):
    pass


class _Characters(_Served, ChannelChar):
    pass


class _Text(_Served, ChannelString):
    pass


class _Double(_Served, ChannelDouble):
    pass


class _Integer(_Served, ChannelInteger):
    pass


def _channel(record: Record) -> Any:
    """The channel of a record, of the type that it has in areaDetector."""
    field = record.field
    about: dict[str, Any] = {"record": record}
    if record.choices:
        return _Enum(**about, enum_strings=record.choices)
    if field.kind is Kind.STRING:
        about["string_encoding"] = "utf-8"
        if field.name in _LONG_TEXTS:
            return _Characters(**about, max_length=LONGEST_TEXT)
        return _Text(**about)
    about["units"] = field.units
    if field.array:
        about["max_length"] = _DIMENSIONS
    return (_Double if field.kind is Kind.DOUBLE else _Integer)(**about)


async def _put(record: Record, value: Value) -> Status:
    """Put a value as a client of PVAccess does that waits until all is over that it begins."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Status] = loop.create_future()

    def on_status(status: Status) -> None:
        # The client may have gone.
        if not result.done():
            result.set_result(status)

    def done(_: Put, status: Status) -> None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(on_status, status)

    given: object = {"index": value} if record.choices else value
    put = Put({"value": given}, _VALUE_BITS, done, waits=True)
    assert record.channel.on_put is not None  # noqa: S101 - others cannot be written
    record.channel.on_put(put)
    await asyncio.wait({result}, timeout=PATIENCE)
    if not result.done() and put.withdraw():
        return Status.error(f"{record.channel.name}: the writer does not take the put")
    return await result
