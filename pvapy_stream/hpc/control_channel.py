"""The control channel: takes commands, runs them, and then says how it went."""

from __future__ import annotations

import json
import logging
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import pvaccess as pva

from pvapy_stream.hpc.processor import UserDataProcessor
from pvapy_stream.pva.channel_structures import bounded, control_type, time_fields
from pvapy_stream.pva.serving import ANYBODY, PutRights, host_writable

# Gets the decoded args; returns the reply; an exception makes it an error reply.
Command = Callable[[object], str]

# Keys of a `configure` command that are ours, with their smallest value.
_SYSTEM_KEYS = {
    "receiverQueueSize": -1,
    "skipInitialUpdates": 0,
    "objectIdOffset": 1,
    "nSequentialUpdates": 1,
    "collectorCacheSize": -1,
}

_log = logging.getLogger(__name__)


class ControlChannel:
    """Hosts a control channel on a server.

    A client puts `command` (and `args`, JSON); the server's own thread runs the command, so
    commands come one after another. Then `statusMessage` and the times are written, and `command`
    and `args` are cleared: a later put of one field alone cannot meet the other's old value.

    Args:
        commands: what to run, by name.
        takes_args: names of commands that need `args`.
        rights: which clients may put.
    """

    def __init__(
        self,
        server: pva.PvaServer,
        name: str,
        id_field: str,
        stage_id: int,
        commands: Mapping[str, Command],
        takes_args: frozenset[str],
        rights: PutRights = ANYBODY,
    ) -> None:
        self._server = server
        self.name = name
        self._commands = commands
        self._takes_args = takes_args
        first = pva.PvObject(control_type(id_field), {id_field: stage_id})
        host_writable(server, name, first, self._on_put, rights)

    def reply(self, message: str) -> None:
        """Write a message to the channel."""
        said = {"statusMessage": bounded(message), "command": "", "args": ""}
        self._server.update(self.name, {**said, **time_fields()})

    def _on_put(self, record: pva.PvObject) -> None:
        command, args = record["command"], record["args"]
        if not command and not args:
            # Nothing was put: any client may ask for this by a get with record[process=true].
            return
        try:
            message = self._run(command.strip(), args.strip())
        except Exception as error:
            message = f"Error: {error}" if str(error) else f"Error: {type(error).__name__}"
            _log.warning("%s: %s", self.name, message)
        self.reply(message)

    def _run(self, command: str, args: str) -> str:
        if not command:
            raise ValueError(
                f"no command given; put command as one of {', '.join(sorted(self._commands))}"
            )
        if command not in self._commands:
            raise ValueError(
                f"unknown command {command!r}; known are {', '.join(sorted(self._commands))}"
            )
        _log.info("%s: %s %s", self.name, command, args)
        value: object = None
        if command in self._takes_args:
            if not args:
                raise ValueError(f'{command} needs args: JSON such as {{"key": 1}}')
            try:
                value = json.loads(args)
            except json.JSONDecodeError as error:
                raise ValueError(f"args is not JSON ({error}): {args}") from error
        return self._commands[command](value)


class KeysRead(dict[str, object]):
    """The arguments of a `configure` command, which note which of their keys are read.

    Attributes:
        read: the keys.
    """

    def __init__(self, values: Mapping[str, object]) -> None:
        super().__init__(values)
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> object:
        self.read.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.read.add(str(key))
        return super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.read.add(key)
        return super().get(key, default)

    def pop(self, key: str, *default: object) -> object:
        self.read.add(key)
        return super().pop(key, *default)

    def _all(self) -> dict[str, object]:
        self.read.update(super().keys())
        return dict(super().items())

    # A copy asks for `keys` and then each of them, if `__iter__` is not dict's own.
    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def keys(self) -> Any:
        return self._all().keys()

    def values(self) -> Any:
        return self._all().values()

    def items(self) -> Any:
        return self._all().items()

    def copy(self) -> dict[str, object]:
        return self._all()

    def __or__(self, other: Any) -> Any:
        return self._all() | other

    def __eq__(self, other: object) -> bool:
        return self._all() == other

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __reduce__(self) -> Any:
        return dict, (self._all(),)


def configured(processor: UserDataProcessor, values: object, ours: Iterable[str]) -> str:
    """Configure a processor; the reply, which names the unknown keys.

    Args:
        processor: the processor.
        values: what it is given.
        ours: keys that the stage has taken.
    """
    reply = "Configuration successful"
    if not isinstance(values, dict):
        processor.configure(values)
        return reply
    given = KeysRead(cast("dict[str, object]", values))
    read, kept = given.read, weakref.ref(given)
    processor.configure(given)
    del given
    known = {*read, *ours}
    # Of what is kept as a whole, any key may be read later.
    unknown = [key for key in values if key not in known] if kept() is None else []
    if not unknown:
        return reply
    taken = [key for key in values if key in known] or ["none"]
    return f"{reply}; taken: {', '.join(taken)}; unknown: {', '.join(unknown)}"


def own_keys(values: object) -> dict[str, int]:
    """Those of the arguments of a `configure` command that are ours.

    Raises:
        ValueError: one is no number, or too small.
    """
    if not isinstance(values, dict):
        return {}
    given = cast("dict[str, object]", values)
    return {key: _whole(key, given[key], low) for key, low in _SYSTEM_KEYS.items() if key in given}


def _whole(key: str, value: object, lowest: int) -> int:
    if not isinstance(value, bool) and isinstance(value, (int, str)):
        text = str(value)
        if text.lstrip("-").isdigit() and int(text) >= lowest:
            return int(text)
    raise ValueError(f"{key} must be a whole number from {lowest} on, not {value!r}")
