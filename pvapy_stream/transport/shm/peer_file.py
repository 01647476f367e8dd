"""Files through which a publisher and its subscribers coordinate.

A publisher has one file; a subscriber has one for each publisher it is connected to. The owner
keeps its file locked as long as it lives. Both sides map the file and read and write its counters.

Layout, which is the same in all versions that can work together:

- bytes 0 to 127: 16 integers of 8 bytes, see `PublisherCounters` and `SubscriberCounters`;
- from byte 128: length of the description (4 bytes, little-endian), and the description
  (MessagePack, see `PublisherInfo` and `SubscriberInfo`).

A version with another layout of the counters must also change the description, so that the other
side refuses the file instead of misreading it.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Annotated, ClassVar, Generic, TypeVar

import msgspec

from pvapy_stream.errors import TransportError
from pvapy_stream.transport.policy import RUNS
from pvapy_stream.transport.shm.user_folder import lock

SIZE = 4096  # bytes of a peer file
_COUNTERS = 16  # 8-byte integers at the beginning, most of them reserved
_INFO_AT = _COUNTERS * 8
_LENGTH = struct.Struct("<I")

Key = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
Unsigned = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]


class PublisherInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """Description of a publisher.

    Attributes:
        key: that no other publisher has.
        pid: of its process.
        source: whether it makes its objects itself, so that ids start again with it.
    """

    key: Key
    pid: Unsigned
    source: bool = False

    @property
    def name(self) -> str:
        """Name of its peer file."""
        return f"p-{self.key}"


class SubscriberInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """Description of a subscriber: its process, and its set in the distribution.

    Attributes:
        policy: of its group, see `transport.policy`.
        pools: whether it understands references to payloads in pools.
        program, channel: names for messages; "" in other versions.
    """

    key: Key
    publisher: Key
    pid: Unsigned
    group: str = ""
    client_set: str = ""
    updates: Unsigned = 1
    queue: Unsigned = 0
    pools: bool = False
    program: str = ""
    channel: str = ""
    policy: str = RUNS

    @property
    def name(self) -> str:
        """Name of its peer file."""
        return f"s-{self.publisher}-{self.key}"

    @property
    def who(self) -> str:
        """Its program, for messages."""
        process = f"process {self.pid}"
        return f"{self.program} ({process})" if self.program else process


class SubscriberState(IntEnum):
    """State of a subscriber, which it writes and its publisher reads."""

    JOINING = 0
    READY = 1
    LEAVING = 2


class PublisherCounters(ctypes.Structure):
    """What a publisher shows to its subscribers.

    Attributes:
        newest_id: id of the newest object.
        published: number of objects published.
    """

    newest_id: int
    published: int
    _fields_: ClassVar = [
        ("newest_id", ctypes.c_int64),
        ("published", ctypes.c_uint64),
        ("reserved", ctypes.c_uint64 * (_COUNTERS - 2)),
    ]


class SubscriberCounters(ctypes.Structure):
    """What a subscriber and its publisher share.

    Attributes:
        taken: number of samples the subscriber has taken from its queue.
        sleeping: 1 while it waits for a wake-up; the publisher sets it to 0 when it sends one.
        state: a `SubscriberState`.
        released: 1 when the publisher will send nothing more.
        secured: number of the last sample of which it holds the payload, or does not need it.
        copies: 1 if it cannot read pools.
        emptied: how often it found its queue empty before it got its first object.
    """

    taken: int
    sleeping: int
    state: int
    released: int
    secured: int
    copies: int
    emptied: int
    _fields_: ClassVar = [
        ("taken", ctypes.c_uint64),
        ("sleeping", ctypes.c_uint64),
        ("state", ctypes.c_uint64),
        ("released", ctypes.c_uint64),
        ("secured", ctypes.c_uint64),
        ("copies", ctypes.c_uint64),
        ("emptied", ctypes.c_uint64),
        ("reserved", ctypes.c_uint64 * (_COUNTERS - 7)),
    ]


Info = TypeVar("Info", PublisherInfo, SubscriberInfo)
Counters = TypeVar("Counters", PublisherCounters, SubscriberCounters)


@dataclass(frozen=True, slots=True)
class PeerKind(Generic[Info, Counters]):
    """A kind of peer file.

    Attributes:
        prefix: beginning of the file names.
        info: type of the description.
        counters: type of the counters.
    """

    prefix: str
    info: type[Info]
    counters: type[Counters]


PUBLISHER = PeerKind("p-", PublisherInfo, PublisherCounters)
SUBSCRIBER = PeerKind("s-", SubscriberInfo, SubscriberCounters)


def write_info(file: int, info: PublisherInfo | SubscriberInfo) -> None:
    """Give a new file its size and its description.

    Raises:
        TransportError: the description is too long.
    """
    encoded = msgspec.msgpack.encode(info)
    if len(encoded) > SIZE - _INFO_AT - _LENGTH.size:
        raise TransportError(
            f"the names of group and set have {len(encoded)} bytes, which is too long; shorten"
            " --distributor-group or --distributor-set"
        )
    os.posix_fallocate(file, 0, SIZE)
    os.pwrite(file, _LENGTH.pack(len(encoded)) + encoded, _INFO_AT)


class PeerFile(Generic[Info, Counters]):
    """A peer file, mapped into memory.

    Attributes:
        path: where it is.
        counters: its counters; after `close`, a copy that is not shared any more.

    Raises:
        OSError, ValueError: the file cannot be mapped.
    """

    def __init__(self, path: Path, file: int, kind: PeerKind[Info, Counters]) -> None:
        self.path = path
        self._file = file
        self._kind = kind
        # The counters keep the mapping: it ends when they are no longer referenced, so that a
        # thread that is slow to notice `close` never touches memory that is not mapped.
        self.counters: Counters = kind.counters.from_buffer(mmap.mmap(file, SIZE))

    def read_info(self) -> Info:
        """Read the description.

        Raises:
            TransportError: it was written by another version, or belongs to another file.
        """
        content = os.pread(self._file, SIZE - _INFO_AT, _INFO_AT)
        try:
            (size,) = _LENGTH.unpack_from(content)
            info = msgspec.msgpack.decode(
                content[_LENGTH.size : _LENGTH.size + size], type=self._kind.info
            )
        except (struct.error, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise TransportError(f"its description is not understood ({error})") from error
        if info.name != self.path.name:
            raise TransportError(f"its description belongs to {info.name}")
        return info

    def has_owner(self) -> bool:
        """Whether the process that created it still runs."""
        if not lock(self._file, fcntl.LOCK_SH):
            return True
        fcntl.flock(self._file, fcntl.LOCK_UN)
        return False

    def close(self, remove: bool) -> None:
        """Close it, and remove it if asked."""
        if remove:
            self.path.unlink(missing_ok=True)
        self.counters = self._kind.counters.from_buffer_copy(self.counters)
        os.close(self._file)


PublisherFile = PeerFile[PublisherInfo, PublisherCounters]
SubscriberFile = PeerFile[SubscriberInfo, SubscriberCounters]
