"""What became of a request."""

from __future__ import annotations

from enum import IntEnum

from msgspec import Struct

from pvapy_stream.errors import WireError
from pvapy_stream.pva.wire.buffers import Reader, Writer

_PLAIN_OK = 0xFF


class Severity(IntEnum):
    """How it went; what was asked for was done if it is below `ERROR`."""

    OK = 0
    WARNING = 1
    ERROR = 2
    FATAL = 3


class Status(Struct, frozen=True):
    """What became of a request: one byte 0xFF, or the severity and two strings.

    Attributes:
        severity: how it went.
        text: what went wrong.
        trace: where in the peer's code, if it says so.
    """

    severity: Severity = Severity.OK
    text: str = ""
    trace: str = ""

    @property
    def done(self) -> bool:
        """Whether what was asked for was done."""
        return self.severity < Severity.ERROR

    @classmethod
    def error(cls, text: str) -> Status:
        """What was asked for was not done."""
        return cls(Severity.ERROR, text)

    @classmethod
    def read(cls, reader: Reader) -> Status:
        """Read one from a message."""
        code = reader.byte()
        if code == _PLAIN_OK:
            return cls()
        if code > Severity.FATAL:
            raise WireError(f"a status has the unknown severity {code}")
        return cls(Severity(code), reader.string(), reader.string())

    def write(self, writer: Writer) -> None:
        """Write it to a message."""
        if self == OK:
            writer.byte(_PLAIN_OK)
            return
        writer.byte(self.severity)
        writer.string(self.text)
        writer.string(self.trace)


OK = Status()
