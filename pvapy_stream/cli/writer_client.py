"""``bsread-client`` (record): start and stop a bsread-writer, and show its status."""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.error
import urllib.request
from typing import Any

from pvapy_stream.cli.bsread_writer import read_token
from pvapy_stream.cli.command import CliCommand
from pvapy_stream.cli.options import add_settings, settings_of
from pvapy_stream.errors import AcquisitionError, TransportError
from pvapy_stream.settings import WriterClientSettings

_TICK = 0.2  # s
_FOLLOWED_EVERY = 1.0  # s
_OVER = ("done", "error")

_EPILOG = """\
examples:
  pvapy-stream bsread-client start --pulse-id 4711 --file run_7.h5
  pvapy-stream bsread-client stop --pulse-id 4810 --wait
  pvapy-stream bsread-client stop                # now
  pvapy-stream bsread-client stop --end          # now, and end the writer
  pvapy-stream bsread-client status --follow
exit codes: 0 all well; 1 the writer refused, is in error or not there, or pulses are lost
"""


def add_arguments(made: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_settings(made, WriterClientSettings)
    made.add_argument("action", choices=("start", "stop", "status"), help="what to do")
    made.add_argument(
        "-p", "--pulse-id", type=int, metavar="N", help="with start or stop: this pulse, not now"
    )
    made.add_argument(
        "-s", "--stop-pulse-id", type=int, metavar="N", help="with start: the last pulse"
    )
    made.add_argument(
        "-f", "--file", help="with start: write this file instead of the writer's own"
    )
    made.add_argument("--force", action="store_true", help="with start: replace the file")
    made.add_argument(
        "-a",
        "--acquisition",
        type=int,
        metavar="N",
        help="with stop and status: this acquisition instead of the newest",
    )
    made.add_argument("--end", action="store_true", help="with stop: also end the writer")
    made.add_argument("--wait", action="store_true", help="wait until the acquisition is over")
    made.add_argument("--follow", action="store_true", help="with status: a line every second")
    made.add_argument("--json", action="store_true", help="print the reply unchanged")


def run(options: argparse.Namespace) -> int:
    """Do what was asked; 1 when the acquisition is in error or has lost pulses.

    Raises:
        PvapyStreamError: the writer does not answer, or refuses.
    """
    settings = settings_of(WriterClientSettings, vars(options))
    client = WriterClient(settings.url, read_token(settings.token_file), settings.timeout)
    if options.action == "start":
        reply = client.start(options.pulse_id, options.file, options.stop_pulse_id, options.force)
    elif options.action == "stop":
        reply = client.end() if options.end else client.stop(options.pulse_id, options.acquisition)
    else:
        reply = client.status(options.acquisition)
    number = reply["acquisition"]
    if options.follow:
        while reply["phase"] not in _OVER:
            _print(reply, options.json)
            time.sleep(_FOLLOWED_EVERY)
            reply = client.status(number)
    elif options.wait:
        reply = client.wait(number)
    _print(reply, options.json)
    return 1 if reply["status"] == "error" or reply["missing"] else 0


class WriterClient:
    """Client of a writer, for scripts.

    Args:
        url: of its REST interface.
        token: bearer token, "" for none.
        timeout: s for each answer, and for `wait`.
    """

    def __init__(self, url: str, token: str = "", timeout: float = 30.0) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._timeout = timeout

    def start(
        self,
        pulse_id: int | None,
        file: str | None = None,
        stop_pulse_id: int | None = None,
        force: bool = False,
    ) -> dict[str, Any]:
        """Start with a pulse, or now; the writer's reply."""
        path = "start_now" if pulse_id is None else f"start_pulse_id/{pulse_id}"
        body = {"output_file": file, "stop_pulse_id": stop_pulse_id, "force": force}
        return self.ask("PUT", path, body)

    def stop(self, pulse_id: int | None, number: int | None = None) -> dict[str, Any]:
        """Stop with a pulse, or now; the writer's reply."""
        path = "stop_now" if pulse_id is None else f"stop_pulse_id/{pulse_id}"
        return self.ask("PUT", path if number is None else f"acquisitions/{number}/{path}")

    def end(self) -> dict[str, Any]:
        """Close all files and end the writer, also one that takes one acquisition after another.

        Raises:
            AcquisitionError: it still answers after the time limit.
        """
        reply = self.ask("GET", "kill")
        deadline = time.monotonic() + self._timeout
        while self._answers():
            if time.monotonic() > deadline:
                raise AcquisitionError(
                    f"the writer at {self._url} has closed its files, but is still running after"
                    f" {self._timeout:g} s; wait longer with --timeout"
                )
            time.sleep(_TICK)
        return reply

    def _answers(self) -> bool:
        try:
            self.status()
        except TransportError:
            return False
        return True

    def status(self, number: int | None = None) -> dict[str, Any]:
        """Status of an acquisition; None for the newest."""
        return self.ask("GET", "status" if number is None else f"acquisitions/{number}")

    def wait(self, number: int | None = None) -> dict[str, Any]:
        """Wait until an acquisition has ended.

        Raises:
            AcquisitionError: it is not, within the time limit.
        """
        deadline = time.monotonic() + self._timeout
        while (reply := self.status(number))["phase"] not in _OVER:
            if time.monotonic() > deadline:
                raise AcquisitionError(
                    f"acquisition {reply['acquisition']} is still {reply['phase']} after"
                    f" {self._timeout:g} s; wait longer with --timeout"
                )
            time.sleep(_TICK)
        return reply

    def ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Send a request.

        Raises:
            TransportError: no writer answers.
            AcquisitionError: it refuses.
        """
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        data = None if body is None else json.dumps(body).encode()
        where = f"{self._url}/{path}"
        if not where.startswith(("http://", "https://")):
            raise TransportError(f"{self._url!r} is not an address; write http://host:port")
        request = urllib.request.Request(where, data, headers, method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as answer:  # noqa: S310
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AcquisitionError(f"the writer refuses: {_reason(error)}") from error
        except (OSError, ValueError) as error:
            raise TransportError(
                f"no writer answers at {self._url}: {error}; check --url, and that the writer runs"
            ) from error


def _reason(error: urllib.error.HTTPError) -> str:
    with error:
        try:
            return str(json.load(error)["status"])
        except (OSError, ValueError, KeyError, TypeError):
            return str(error)


def _print(reply: dict[str, Any], as_json: bool) -> None:
    if as_json:
        line = json.dumps(reply)
    else:
        missing = ", ".join(f"{a}-{b}" for a, b in reply["missing"])
        line = " ".join(
            filter(
                None,
                (
                    f"acquisition {reply['acquisition']}: {reply['phase']}",
                    reply["file"],
                    f"(missing {missing})" if missing else "",
                    f"- {reply['problem']}" if reply["problem"] else "",
                ),
            )
        )
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


COMMAND = CliCommand(
    "pvapy-stream bsread-client",
    "Start and stop acquisitions of a bsread-writer, and show their status.",
    run,
    _EPILOG,
    add_arguments=add_arguments,
)
main = COMMAND.main
