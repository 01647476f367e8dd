"""One stream on this host, from a simulator of our own through real consumers."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pvapy_stream.accounting.ledger import Ledger, merged, read_ledgers
from pvapy_stream.errors import PvapyStreamError
from pvapy_stream.hpc.consumers import run_stages
from pvapy_stream.hpc.service import StageReport
from pvapy_stream.launch.programs import EntryPoint
from pvapy_stream.preflight.findings import Findings
from pvapy_stream.settings import ConsumerSettings

DIFFERENT = 20  # frames, so that no cache holds the one
CONNECT = 30.0  # s
_END = 20.0  # s


class Trial:
    """One stream on this host, from a simulator of its own through real consumers.

    Args:
        folder: for ledgers and logs.
        found: the frames.
        consumer: what receives; its channels are replaced.
        rate: frames/s; 0: as fast as the simulator can.
        seconds: length of the stream.

    Attributes:
        rate: frames/s that were processed.
        lost: frames that were published and not processed.
    """

    def __init__(
        self,
        folder: Path,
        found: Findings,
        consumer: ConsumerSettings,
        rate: float,
        seconds: float,
    ) -> None:
        prefix = f"preflight:{uuid.uuid4().hex[:8]}:"
        self._ids = consumer.ids
        self._status = f"{prefix}status:*"
        self._consumer = consumer.replace(
            input_channel=f"{prefix}image",
            output_channel=f"{prefix}out:*" if consumer.output_channel else "",
            status_channel=self._status,
            # Who wants no ledger gets no account.
            ledger=str(folder / "consumers.json"),
        )
        self._folder = folder
        self._found = found
        self._ledger = folder / "sim.json"
        self._wanted = rate
        self._seconds = seconds
        self.rate = 0.0
        self.lost = 0

    def run(self, stop: threading.Event) -> Trial:
        """Stream.

        Raises:
            PvapyStreamError: the simulator or a consumer failed.
        """
        ended = threading.Event()
        ledgers: list[dict[str, Any]] = []
        reports: dict[int, StageReport] = {}
        problems: list[str] = []

        def show(newest: Mapping[int, StageReport], accounts: list[dict[str, object]]) -> str:
            reports.update(newest)
            ledgers[:] = accounts
            return ""

        def consume() -> None:
            try:
                problems.append(run_stages(self._consumer, ended, show))
            except PvapyStreamError as error:
                problems.append(str(error))

        consumers = threading.Thread(target=consume, name="preflight-consumers")
        simulator = self._simulator()
        try:
            consumers.start()
            limit = time.monotonic() + CONNECT + self._seconds + _END
            while simulator.poll() is None and consumers.is_alive() and not stop.wait(0.05):
                if time.monotonic() > limit:
                    raise PvapyStreamError(f"the simulator does not end; {self._log()}")
        finally:
            ended.set()
            consumers.join(_END)
            if simulator.poll() is None:
                simulator.terminate()
                simulator.wait(_END)
        if simulator.returncode and not stop.is_set():
            raise PvapyStreamError(
                "; ".join(filter(None, problems)) or f"the simulator failed: {self._log()}"
            )
        self._count(ledgers, reports)
        return self

    def _count(self, ledgers: list[dict[str, object]], reports: dict[int, StageReport]) -> None:
        account = merged([Ledger.from_dict(one) for one in ledgers])
        if failed := {kind: len(ids) for kind, ids in account.failed.items() if ids}:
            raise PvapyStreamError(
                f"the processor failed: {json.dumps(failed)}; try it with pvapy-stream try"
            )
        published = read_ledgers(self._ledger)[0].published
        self.lost = len(published - account.processed)
        stats = [report.snapshot.processor_stats for report in reports.values()]
        self.rate = sum(
            (one.n_processed - 1) / one.receiving_time if one.receiving_time else 0.0
            for one in stats
        )

    def _simulator(self) -> subprocess.Popen[bytes]:
        found = self._found
        ny, nx = found.shape[:2]
        stages = ",".join(self._status.replace("*", str(number)) for number in self._ids)
        colours = ["-cm", "2"] if len(found.shape) == 3 else []
        with (self._folder / "sim.log").open("wb") as log:
            return subprocess.Popen(
                EntryPoint.COMMAND.line(
                    "sim", "-cn", self._consumer.input_channel,
                    "-nx", nx, "-ny", ny, "-dt", found.dtype.name, *colours,
                    "-nf", DIFFERENT, "-cs", DIFFERENT, "-fps", self._wanted, "-rt", self._seconds,
                    "--wait-for-stages", stages, "--wait-timeout", CONNECT,
                    "-shd", "0.5", "-rp", "0", "-dc", "--ledger", self._ledger,
                ),
                stdout=log,
                stderr=log,
            )  # fmt: skip

    def _log(self) -> str:
        try:
            return (self._folder / "sim.log").read_text().strip()[-500:]
        except OSError:
            return ""
