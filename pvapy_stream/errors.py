"""The exceptions of this package.

    PvapyStreamError                exit code 1
    ├── SettingsError               exit code 2: an option or key is wrong
    ├── ProcessorError              the user's processor cannot be loaded or created
    ├── MissingExtraError           an optional dependency is not installed
    ├── CodecError                  a compressed payload cannot be decoded
    ├── ObjectError                 an object lacks what a stage needs (id, image, dimensions)
    ├── TransportError              a channel cannot be reached, hosted or published to
    │   └── StreamTimeoutError      a time limit was exceeded; a TimeoutError too
    ├── BsreadError                 a bsread message is malformed
    ├── DectrisError                a message of DECTRIS Stream V2 is malformed
    ├── WireError                   a PVAccess message is malformed, or cannot be created
    ├── SourceError                 frames cannot be read from a file or folder
    ├── FileError                   a data file cannot be written or read
    ├── MonitorError                a monitor, its series, a report or a page fails
    ├── AcquisitionError            an acquisition cannot be started, changed or ended
    │   ├── RangeError              the request is impossible
    │   └── ConflictError           it conflicts with the present state, or a file exists
    ├── LedgerError                 a ledger cannot be read or written
    ├── WorkflowError               a workflow, a project or one of its runs cannot continue
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
    """The user's processor cannot be loaded, created or started."""


class MissingExtraError(PvapyStreamError):
    """An optional dependency is needed and not installed."""


class CodecError(PvapyStreamError):
    """A compressed payload cannot be decoded."""


class ObjectError(PvapyStreamError):
    """An object lacks what a stage needs: its id, an image, its dimensions."""


class TransportError(PvapyStreamError):
    """A channel cannot be reached, hosted or published to."""


class StreamTimeoutError(TransportError, TimeoutError):
    """No frame arrived, or no subscriber connected, within the time limit."""


class BsreadError(PvapyStreamError):
    """A bsread message, or one value of it, does not follow the format or exceeds a limit."""


class DectrisError(PvapyStreamError):
    """A message of DECTRIS Stream V2 does not follow the format or exceeds a limit."""


class WireError(PvapyStreamError):
    """A PVAccess message does not follow the protocol or exceeds a limit, or cannot be created."""


class SourceError(PvapyStreamError):
    """Frames cannot be read from a file or a folder."""


class FileError(PvapyStreamError):
    """A data file cannot be written or read."""


class AcquisitionError(PvapyStreamError):
    """An acquisition cannot be started, changed or ended."""


class RangeError(AcquisitionError):
    """The request is impossible: a stop before the start, an invalid pulse id."""


class ConflictError(AcquisitionError):
    """It conflicts with the present state: already started or ended, or a file exists."""


class LedgerError(PvapyStreamError):
    """A ledger cannot be read or written."""


class MonitorError(PvapyStreamError):
    """A monitor, its series, a report or a page fails."""


class WorkflowError(PvapyStreamError):
    """A workflow, a project or one of its runs cannot continue."""


class CryptoError(PvapyStreamError):
    """A key cannot be used, or an encrypted object is refused.

    Attributes:
        check: the check that an object failed, such as ``signature``; "" for keys.
    """

    def __init__(self, message: str = "", check: str = "") -> None:
        super().__init__(message)
        self.check = check
