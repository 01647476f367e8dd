"""Many status channels of stages that seem to run: ``python -m benchmarks.stages PREFIX N``."""

from __future__ import annotations

import sys
import time

import pvaccess as pva

from pvapy_stream.pva.channel_structures import time_fields
from pvapy_stream.status.channel import structure
from pvapy_stream.status.snapshot import ReceiverStats, Snapshot


def main() -> None:
    prefix, n = sys.argv[1], int(sys.argv[2])
    server = pva.PvaServer()
    server.start()
    kind = structure(Snapshot("consumer", receiver_stats=ReceiverStats()))
    for number in range(1, n + 1):
        server.addRecord(f"{prefix}:{number}", pva.PvObject(kind), None)
    print("ready", flush=True)
    count = 0
    while True:
        count += 1000
        for number in range(1, n + 1):
            status = pva.PvObject(kind)
            status.set(
                {
                    "consumerId": number,
                    "state": "running",
                    "inputChannel": "bench:in",
                    "outputChannel": f"bench:out:{number}",
                    "receiverStats": {"nReceived": count},
                    "processorStats": {"nProcessed": count},
                    "latencyStats": {"n": count, "p50": 1e-3, "p90": 2e-3, "p99": 3e-3},
                    **time_fields(),
                }
            )
            server.update(f"{prefix}:{number}", status)
        time.sleep(1.0)


if __name__ == "__main__":
    main()
