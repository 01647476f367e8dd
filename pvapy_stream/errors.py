"""Every error this package raises on purpose.

    PvapyStreamError                exit code 1
    ├── SettingsError               exit code 2: an option or key is wrong
    ├── ProcessorError              the user's processor cannot be loaded or made
    ├── MissingExtraError           an optional dependency is not installed
    ├── CodecError                  a compressed payload cannot be decoded
    ├── ObjectError                 an object lacks what a stage needs (id, image, dimensions)
    ├── TransportError              a channel cannot be reached, hosted or published to
    │   └── StreamTimeoutError      what was waited for has not come in time; a TimeoutError too
    ├── BsreadError                 a bsread message is malformed
    ├── WireError                   a PVAccess message is malformed, or cannot be made
    ├── SourceError                 frames cannot be read from a file or folder
    ├── FileError                   a data file cannot be written or read
    ├── MonitorError                a monitor, its series, a report or a page cannot do its work
    ├── AcquisitionError            an acquisition cannot be begun, changed or ended
    │   ├── RangeError              what was asked for can never be
    │   └── ConflictError           it cannot be now, or a file is in the way
    ├── LedgerError                 a ledger cannot be read or written
    ├── WorkflowError               a workflow, a project or one of its runs cannot go on
    └── CryptoError                 a key cannot be used, or an encrypted object is refused

A message says what went wrong, where (channel, file, option), and what to do.
"""


class PvapyStreamError(Exception):
    """Root of this package's errors."""

    exit_code = 1


class SettingsError(PvapyStreamError):
    """An option, a configuration key or its value is wrong."""

    exit_code = 2


class ProcessorError(PvapyStreamError):
    """The user's processor cannot be loaded, made or started."""


class MissingExtraError(PvapyStreamError):
    """An optional dependency is needed and not installed."""


class CodecError(PvapyStreamError):
    """A compressed payload cannot be decoded."""


class ObjectError(PvapyStreamError):
    """An object lacks what a stage needs: its id, an image, its dimensions."""


class TransportError(PvapyStreamError):
    """A channel cannot be reached, hosted or published to."""


class StreamTimeoutError(TransportError, TimeoutError):
    """A frame, or a subscriber, has not come within the time limit."""


class BsreadError(PvapyStreamError):
    """A bsread message, or one value of it, does not follow the format or exceeds a limit."""


class WireError(PvapyStreamError):
    """A PVAccess message does not follow the protocol or exceeds a limit, or cannot be made."""


class SourceError(PvapyStreamError):
    """Frames cannot be read from a file or a folder."""


class FileError(PvapyStreamError):
    """A data file cannot be written or read."""


class AcquisitionError(PvapyStreamError):
    """An acquisition cannot be begun, changed or ended."""


class RangeError(AcquisitionError):
    """What was asked for can never be: a stop before the start, an impossible pulse id."""


class ConflictError(AcquisitionError):
    """It cannot be in this state: started twice, over already, a file in the way."""


class LedgerError(PvapyStreamError):
    """A ledger cannot be read or written."""


class MonitorError(PvapyStreamError):
    """A monitor, its series, a report or a page cannot do its work."""


class WorkflowError(PvapyStreamError):
    """A workflow, a project or one of its runs cannot go on."""


class CryptoError(PvapyStreamError):
    """A key cannot be used, or an encrypted object is refused.

    Attributes:
        check: the check an object did not pass, such as ``signature``; "" for keys.
    """

    def __init__(self, message: str = "", check: str = "") -> None:
        super().__init__(message)
        self.check = check
