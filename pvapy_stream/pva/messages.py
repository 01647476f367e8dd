"""Messages of the PVA protocol with which channels are searched for: no input, no output."""

from __future__ import annotations

import secrets
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass

HEADER = 8  # bytes
MAGIC, VERSION = 0xCA, 2
VALIDATION, SEARCH, FOUND, VALIDATED = 1, 3, 4, 9  # commands
SET_BYTE_ORDER = 2  # command of a control message
CONTROL, SEGMENTED, FROM_SERVER, BIG_ENDIAN = 0x01, 0x30, 0x40, 0x80  # flags
_PROTOCOL = "tcp"


@dataclass(frozen=True, slots=True)
class Search:
    """What a client searches for.

    Attributes:
        sequence: number of the request.
        names: of the channels, by the client's numbers.
        port: to which answers are sent.
    """

    sequence: int
    names: dict[int, str]
    port: int


def search_request(
    names: Mapping[int, str], port: int = 0, cast: int = 0, order: str = "<"
) -> bytes:
    """A message that asks for channels.

    Args:
        names: of the channels, by the numbers that answers give.
        port: to which answers are sent; 0 for those who are asked over TCP.
        cast: flags for the receiver of a datagram.
        order: byte order, as in `struct`.
    """
    payload = struct.pack(f"{order}IB3x16xH", secrets.randbits(32), cast, port)
    payload += b"\x01" + string(_PROTOCOL, order) + struct.pack(f"{order}H", len(names))
    for number, name in names.items():
        payload += struct.pack(f"{order}I", number) + string(name, order)
    return pva_message(SEARCH, payload, order)


def pva_message(command: int, payload: bytes, order: str = "<", flags: int = 0) -> bytes:
    """A message with its header."""
    flags |= BIG_ENDIAN if order == ">" else 0
    return struct.pack(f"{order}BBBBI", MAGIC, VERSION, flags, command, len(payload)) + payload


def string(text: str, order: str = "<") -> bytes:
    """A string as messages have it."""
    plain = text.encode()
    if len(plain) < 254:
        return bytes([len(plain)]) + plain
    return b"\xfe" + struct.pack(f"{order}I", len(plain)) + plain


def order_of(message: bytes) -> str:
    """Byte order of a message, as in `struct`."""
    return ">" if message[2] & BIG_ENDIAN else "<"


def read_search(message: bytes) -> Search | None:
    """What is searched for in a message; None when it is no search for servers over TCP."""
    if len(message) < HEADER or message[0] != MAGIC or message[3] != SEARCH:
        return None
    order = order_of(message)
    try:
        (sequence,) = struct.unpack_from(f"{order}I", message, HEADER)
        (port,) = struct.unpack_from(f"{order}H", message, HEADER + 24)
        place, protocols = HEADER + 27, list[str]()
        for _ in range(message[HEADER + 26]):
            protocol, place = _read_string(message, place, order)
            protocols.append(protocol)
        (count,) = struct.unpack_from(f"{order}H", message, place)
        place += 2
        names: dict[int, str] = {}
        for _ in range(count):
            (number,) = struct.unpack_from(f"{order}I", message, place)
            names[number], place = _read_string(message, place + 4, order)
    except (struct.error, IndexError, UnicodeDecodeError):
        return None
    return Search(sequence, names, port) if _PROTOCOL in protocols else None


def search_answer(search: Search, number: int, identity: bytes, host: str, port: int) -> bytes:
    """A message that says who serves one of the channels that are searched for."""
    payload = identity + struct.pack("<I10xBB", search.sequence, 0xFF, 0xFF)
    payload += socket.inet_aton(host) + struct.pack("<H", port) + string(_PROTOCOL)
    payload += struct.pack("<BHI", 1, 1, number)
    return pva_message(FOUND, payload, flags=FROM_SERVER)


def search_answers(message: bytes, sender: tuple[str, int]) -> list[tuple[int, bytes, str]]:
    """Names that a server says it serves: number, identity of the server, its address."""
    if len(message) < 8 or message[0] != MAGIC or message[3] != FOUND:
        return []
    order = order_of(message)
    try:
        identity = message[8:20]
        (port,) = struct.unpack_from(f"{order}H", message, 40)
        place = 43 + message[42]
        found, count = struct.unpack_from(f"{order}BH", message, place)
        numbers = struct.unpack_from(f"{order}{count}I", message, place + 3)
    except (struct.error, IndexError):
        return []
    host = socket.inet_ntoa(message[36:40])
    where = f"{sender[0] if host == '0.0.0.0' else host}:{port}"  # noqa: S104 - means: the sender
    return [(number, identity, where) for number in numbers] if found else []


def _read_string(message: bytes, place: int, order: str) -> tuple[str, int]:
    """A string of a message, and where it ends."""
    size, place = message[place], place + 1
    if size == 0xFE:
        (size,) = struct.unpack_from(f"{order}I", message, place)
        place += 4
    plain = message[place : place + size]
    if len(plain) < size:
        raise IndexError(size)
    return plain.decode(), place + size
