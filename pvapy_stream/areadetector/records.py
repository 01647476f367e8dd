"""Records on PVA channels, as clients of an IOC know them: value, alarm, time, description."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, cast

from pvapy_stream.areadetector.plugin_records import RecordField, Value
from pvapy_stream.errors import ObjectError
from pvapy_stream.pva.channel_structures import bounded
from pvapy_stream.pva.net.server import Server
from pvapy_stream.pva.net.server_channel import Channel, Put
from pvapy_stream.pva.wire.status import Status
from pvapy_stream.pva.wire.types import Array, Kind, Scalar, Structure

NO_ALARM, MINOR, MAJOR = 0, 1, 2

_DRIVER = 2  # status of an alarm: it comes from a driver
PATIENCE = 30.0  # s; a put is taken within this, as a disk may be slow
LONGEST_TEXT = 4096  # bytes of a text
_ALARM = Structure(
    "alarm_t",
    (
        ("severity", Scalar(Kind.INT)),
        ("status", Scalar(Kind.INT)),
        ("message", Scalar(Kind.STRING)),
    ),
)
_TIME = Structure(
    "time_t",
    (
        ("secondsPastEpoch", Scalar(Kind.LONG)),
        ("nanoseconds", Scalar(Kind.INT)),
        ("userTag", Scalar(Kind.INT)),
    ),
)
_DISPLAY = Structure(
    "display_t",
    (
        ("limitLow", Scalar(Kind.DOUBLE)),
        ("limitHigh", Scalar(Kind.DOUBLE)),
        ("description", Scalar(Kind.STRING)),
        ("units", Scalar(Kind.STRING)),
    ),
)
_ENUM = Structure("enum_t", (("index", Scalar(Kind.INT)), ("choices", Array(Kind.STRING))))

Structured = dict[str, object]
OnPut = Callable[["Record", Put], None]


class _ControlChannel(Channel):
    """A channel whose value is what its program says, also after a put."""

    def expect(self, put: Put) -> None:
        pass

    def settle(self, put: Put, status: Status) -> None:
        pass


class Record:
    """One record. Any thread may use it.

    Args:
        name: of its channel.
        field: what it is.
        choices: texts of its values; () for none.
        on_put: called with each put, in the server's thread; None if clients may not put.
        may_put: whether a client may put, by its user name and address.
        lock: of the server's loop.
    """

    def __init__(
        self,
        name: str,
        field: RecordField,
        choices: tuple[str, ...],
        on_put: OnPut | None,
        may_put: Callable[[str, str], bool],
        lock: threading.RLock,
    ) -> None:
        self.field = field
        self.value: Value = field.value
        self.choices = choices
        # Called with each new value and severity, in any thread.
        self.on_change: Callable[[Value, int], None] | None = None
        self._lock = lock
        self._alarm = (NO_ALARM, "")
        self.channel = _ControlChannel(
            name,
            self._kind(),
            self._structure(),
            None if on_put is None else lambda put: on_put(self, put),
            may_put,
            PATIENCE,
        )
        self.channel.blocks = True

    def _kind(self) -> Structure:
        field = self.field
        value = Array(field.kind) if field.array else Scalar(field.kind)
        if self.choices:
            return Structure(
                "epics:nt/NTEnum:1.0",
                (
                    ("value", _ENUM),
                    ("descriptor", Scalar(Kind.STRING)),
                    ("alarm", _ALARM),
                    ("timeStamp", _TIME),
                ),
            )
        return Structure(
            "epics:nt/NTScalarArray:1.0" if field.array else "epics:nt/NTScalar:1.0",
            (("value", value), ("alarm", _ALARM), ("timeStamp", _TIME), ("display", _DISPLAY)),
        )

    def _structure(self) -> Structured:
        seconds, nanoseconds = divmod(time.time_ns(), 10**9)
        severity, message = self._alarm
        status = _DRIVER if severity else 0
        made: Structured = {
            "alarm": {"severity": severity, "status": status, "message": message},
            "timeStamp": {
                "secondsPastEpoch": seconds, "nanoseconds": nanoseconds, "userTag": 0,
            },
        }  # fmt: skip
        if self.choices:
            made["value"] = {"index": self.value, "choices": list(self.choices)}
            made["descriptor"] = self.field.text
        else:
            made["value"] = self.value
            made["display"] = {
                "limitLow": 0.0, "limitHigh": 0.0,
                "description": self.field.text, "units": self.field.units,
            }  # fmt: skip
        return made

    def set(self, value: Value, severity: int = NO_ALARM, message: str = "") -> None:
        """Give it a value and an alarm; clients get an update if one of them is new."""
        with self._lock:
            alarm = (severity, bounded(message))
            if value == self.value and alarm == self._alarm:
                return
            self.value, self._alarm = value, alarm
            self.channel.update(self._structure())
            if self.on_change is not None:
                self.on_change(value, severity)

    def alarm(self, message: str) -> None:
        """Show an alarm, with the value as it is."""
        self.set(self.value, MAJOR, message)

    def read(self, put: Put) -> Value:
        """What a client puts.

        Raises:
            ObjectError: it may not be put.
        """
        field = self.field
        given = put.value.get("value")
        # The value is the first field, and bit 1; that of a choice has two fields more.
        if not put.bits & (0b1111 if self.choices else 0b11):
            raise ObjectError(f"{self.channel.name}: only the value can be put")
        value = cast("Value", cast("dict[str, Any]", given)["index"] if self.choices else given)
        if self.choices and not 0 <= cast("int", value) < len(self.choices):
            raise self.no_choice(value)
        if isinstance(value, str):
            # Clients that put arrays of characters end them with a 0.
            value = value.rstrip("\0")
            _check_text(self.channel.name, value)
        if field.permitted is not None and value not in field.permitted:
            shown = self.choices[cast("int", value)] if self.choices else repr(value)
            raise ObjectError(f"{self.channel.name} cannot be {shown[:80]}: {field.why}")
        return value

    def no_choice(self, given: object) -> ObjectError:
        """The error of a put of something that is none of the choices."""
        return ObjectError(
            f"{self.channel.name}: there is no choice {given}; there are {', '.join(self.choices)}"
        )


def _check_text(name: str, text: str) -> None:
    size = len(text.encode("utf-8", "replace"))
    if size > LONGEST_TEXT:
        raise ObjectError(
            f"{name}: a text of {size} bytes is too long; give at most {LONGEST_TEXT}"
        )
    if not text.isprintable():
        raise ObjectError(f"{name}: {text[:80]!r} has characters that cannot be printed")


class Records:
    """The records of a plugin.

    Args:
        prefix: of their names.
        fields: what there is.
        server: takes the channels.
        on_put: called with each put, in the server's thread.
        may_put: whether a client may put, by its user name and address.
    """

    def __init__(
        self,
        prefix: str,
        fields: Iterable[RecordField],
        server: Server,
        on_put: OnPut,
        may_put: Callable[[str, str], bool],
    ) -> None:
        self._records: dict[str, Record] = {}
        self._twins: dict[str, Record] = {}
        lock = server.loop.lock
        for field in fields:
            takes = on_put if field.writable else None
            made = Record(prefix + field.name, field, field.choices, takes, may_put, lock)
            self._records[field.name] = made
            server.add(made.channel)
            if field.twin:
                choices = field.twin_choices or field.choices
                twin = Record(prefix + field.twin, field, choices, None, may_put, lock)
                self._twins[field.name] = twin
                server.add(twin.channel)

    def __iter__(self) -> Iterator[Record]:
        """All records, also those that show others."""
        return chain(self._records.values(), self._twins.values())

    def __getitem__(self, name: str) -> Any:
        """The value of a record."""
        return self._records[name].value

    def set(self, name: str, value: Value, severity: int = NO_ALARM, message: str = "") -> None:
        """Give a record, and the one that shows it, a value and an alarm."""
        if (twin := self._twins.get(name)) is not None:
            twin.set(value, severity, message)
        self._records[name].set(value, severity, message)


def names(prefix: str, fields: Iterable[RecordField]) -> list[str]:
    """Names of the channels of fields."""
    return [prefix + one for field in fields for one in (field.name, field.twin) if one]
