"""CA records in an IOC of its own process: access security of PVA channels would close them here.

The records are hosted by ``python -m pvapy_stream.sim.ca_records NAME...``, which takes one line of
JSON values for each update from its standard input, answers each with a line, and ends with it.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, cast

import pvaccess as pva

from pvapy_stream.errors import TransportError

_READY = b"ready"
_PATH = "EPICS_DB_INCLUDE_PATH"
_START_LIMIT = 60.0  # s
_ANSWER_LIMIT = 10.0  # s
_END_LIMIT = 5.0  # s


class CaRecords:
    """Analog records that CA clients can get and put.

    Args:
        names: of the records.

    Raises:
        TransportError: they cannot be hosted.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        _find_definitions()
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, *self._names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            # Ctrl-C is for the simulator; the records end with it.
            start_new_session=True,
        )
        self._requests = cast("IO[bytes]", self._process.stdin)
        self._answers = cast("IO[bytes]", self._process.stdout)
        self._end = weakref.finalize(self, _end, self._process)
        if self._answer(_START_LIMIT) != _READY:
            self._end()
            raise TransportError("the IOC has ended; see its messages above")

    def put(self, values: Sequence[float]) -> None:
        """Give all records new values; they are there when this returns.

        Raises:
            TransportError: the IOC has ended.
        """
        try:
            self._requests.write(json.dumps(list(values)).encode() + b"\n")
        except OSError:
            answer = b""
        else:
            answer = self._answer(_ANSWER_LIMIT)
        if not answer:
            raise TransportError(f"the IOC of {', '.join(self._names)} does not answer")

    def close(self) -> None:
        """End the IOC."""
        self._end()

    def _answer(self, limit: float) -> bytes:
        """The next line, without its end; b"" when none came."""
        # One line answers one of ours, so there is never more than that to read.
        if not select.select([self._answers], [], [], limit)[0]:
            return b""
        return self._answers.readline().strip()


def _end(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    try:
        process.wait(_END_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_END_LIMIT)


def _find_definitions() -> str:
    given = os.environ.get(_PATH)
    folders = given or str(Path(pva.__file__).parent / "dbd")
    if not any((Path(one) / "base.dbd").is_file() for one in folders.split(os.pathsep)):
        cure = f"correct {_PATH}, or unset it" if given else f"set {_PATH} to the dbd of EPICS base"
        raise TransportError(f"base.dbd is not in {folders}; {cure}")
    return folders


def _start_ioc(names: Sequence[str]) -> Any:
    folder = _find_definitions()
    ioc = pva.CaIoc()
    ioc.loadDatabase("base.dbd", folder, "")
    ioc.registerRecordDeviceDriver()
    with tempfile.TemporaryDirectory() as where:
        file = Path(where) / "metadata.db"
        file.write_text("".join(f'record(ao, "{name}") {{ field(PREC, "6") }}\n' for name in names))
        ioc.loadRecords(str(file), "")
        ioc.start()
    return ioc


def _serve(names: Sequence[str], updates: IO[bytes], answers: IO[bytes]) -> None:
    ioc = _start_ioc(names)
    answers.write(_READY + b"\n")
    for line in updates:
        for name, value in zip(names, json.loads(line), strict=True):
            ioc.putField(name, value)
        answers.write(b"done\n")


def main() -> None:
    """Host the records until standard input ends."""
    # The IOC prints to standard output, which is for answers alone.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    _serve(sys.argv[1:], sys.stdin.buffer, answers)
    # Threads of the IOC do not end by themselves.
    os._exit(0)


if __name__ == "__main__":
    main()
