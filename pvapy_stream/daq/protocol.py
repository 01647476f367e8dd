"""What a buffer and its readers say to each other; see docs/bsread.md."""

from __future__ import annotations

import msgspec

from pvapy_stream.daq.cursor import By

# First part of what a buffer sends.
DATA, GONE, ALIVE, END, ERROR = b"data", b"gone", b"alive", b"end", b"error"

ALIVE_PERIOD = 0.5  # s
WINDOW_MESSAGES = 1000
WINDOW_BYTES = 64 * 2**20


class Open(msgspec.Struct, tag_field="op", tag="open"):
    """Ask for a range. `messages` and `nbytes`: how much may be under way unacknowledged."""

    by: By = "pulse_id"
    start: int | None = None
    stop: int | None = None
    messages: int = WINDOW_MESSAGES
    nbytes: int = WINDOW_BYTES


class More(msgspec.Struct, tag_field="op", tag="more"):
    """So much was taken; also sent with 0 to be remembered."""

    messages: int = 0
    nbytes: int = 0


class StopAt(msgspec.Struct, tag_field="op", tag="stop"):
    """Give, or change, the last pulse id or time."""

    stop: int


class Close(msgspec.Struct, tag_field="op", tag="close"):
    """Nothing more is wanted."""


Request = Open | More | StopAt | Close


class GoneReply(msgspec.Struct):
    """What will not come."""

    start: int
    stop: int
    reason: str


class Alive(msgspec.Struct):
    """How the buffer is. `newest`: pulse id; `silent`: s since its source was heard."""

    newest: int | None = None
    silent: float | None = None


class Error(msgspec.Struct):
    """What was wrong with a request. `forgotten`: there is no range, though there may have been."""

    error: str
    forgotten: bool = False


encode = msgspec.json.Encoder().encode
decode_request = msgspec.json.Decoder(Request).decode
decode_gone = msgspec.json.Decoder(GoneReply).decode
decode_alive = msgspec.json.Decoder(Alive).decode
decode_error = msgspec.json.Decoder(Error).decode
