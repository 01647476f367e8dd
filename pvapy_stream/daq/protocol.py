"""The protocol between a buffer and its readers; see docs/bsread.md."""

from __future__ import annotations

import msgspec

from pvapy_stream.daq.cursor import By

# First part of a buffer's messages.
DATA, GONE, ALIVE, END, ERROR = b"data", b"gone", b"alive", b"end", b"error"

ALIVE_PERIOD = 0.5  # s
WINDOW_MESSAGES = 1000
WINDOW_BYTES = 64 * 2**20


class Open(msgspec.Struct, tag_field="op", tag="open"):
    """Request a range. `messages` and `nbytes`: the credit, how much may be unacknowledged."""

    by: By = "pulse_id"
    start: int | None = None
    stop: int | None = None
    messages: int = WINDOW_MESSAGES
    nbytes: int = WINDOW_BYTES


class More(msgspec.Struct, tag_field="op", tag="more"):
    """Add credit; also sent with 0, to stay registered."""

    messages: int = 0
    nbytes: int = 0


class StopAt(msgspec.Struct, tag_field="op", tag="stop"):
    """Set or change the last pulse id or time."""

    stop: int


class Close(msgspec.Struct, tag_field="op", tag="close"):
    """End the request."""


Request = Open | More | StopAt | Close


class GoneReply(msgspec.Struct):
    """Requested pulses that will not arrive."""

    start: int
    stop: int
    reason: str


class Alive(msgspec.Struct):
    """State of the buffer. `newest`: pulse id; `silent`: s since the last message of its source."""

    newest: int | None = None
    silent: float | None = None


class Error(msgspec.Struct):
    """Error of a request. `forgotten`: there is no range, or it was removed."""

    error: str
    forgotten: bool = False


encode = msgspec.json.Encoder().encode
decode_request = msgspec.json.Decoder(Request).decode
decode_gone = msgspec.json.Decoder(GoneReply).decode
decode_alive = msgspec.json.Decoder(Alive).decode
decode_error = msgspec.json.Decoder(Error).decode
