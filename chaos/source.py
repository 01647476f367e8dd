"""A source of the campaign's own: ids of any kind, damaged payloads, a record of what it sent.

Begins at a line on standard input, says ``done`` when all is published, and ends with the next
line, or the end of the input.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pvaccess as pva

from chaos.pixels import SIDE, pixels_of
from chaos.truth import DAMAGED, Record
from pvapy_stream.accounting.account import Account
from pvapy_stream.accounting.keeper import LedgerKeeper
from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.frame import Frame
from pvapy_stream.pva.lazy import LazyObject
from pvapy_stream.pva.ntndarray import ObjectBuilder
from pvapy_stream.transport.mode import PublisherOptions
from pvapy_stream.transport.ports import Publisher
from pvapy_stream.transport.pva_library import PvaSettings
from pvapy_stream.transport.registry import make_source_publisher, source_mode

ID_KINDS = ("plain", "irregular", "jump", "far", "again")
_DAMAGED_ONE_IN = 40
_FAR = (3_000_000, 1_500_000_000, 2_000_000_000)


def ids(kind: str, n: int, seed: int) -> Iterator[int]:
    """The ids of a kind: all within 31 bits."""
    draw = random.Random(seed)
    at = draw.randrange(n // 3, max(n // 3 + 1, n - 20))
    value = 0
    for number in range(n):
        value += draw.choice((1, 1, 2, 7, 40)) if kind == "irregular" else 1
        if number == at:
            if kind == "jump":
                value += draw.choice((5, 300, 5_000))
            elif kind == "again":
                value = draw.choice((1, 1, max(1, value // 2)))
            elif kind == "far":
                # One alone, and the stream continues as before.
                yield draw.choice(_FAR)
        yield value


def damaged(image: np.ndarray, draw: random.Random) -> Frame:
    """A frame whose payload cannot be what it says it is."""
    payload = np.frombuffer(draw.randbytes(draw.choice((3, 40, 700))), np.uint8)
    codec = draw.choice(("bslz4", "lz4", "blosc", "nonsense"))
    return Frame(0, payload, (SIDE, SIDE), dtype=image.dtype, codec=codec)


def main() -> None:
    """Serve, publish, and stay until told to end."""
    options = _parser().parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    account = Account(Ledger("source", output_channel=options.channel))
    account.ledger.begin(1)
    keeper = LedgerKeeper(options.ledger, lambda: account.ledgers, 0.5)
    keeper.keep()
    settings = _settings(options)
    server = pva.PvaServer()
    publisher = make_source_publisher(
        options.mode, PublisherOptions(options.channel, server, settings=settings)
    )
    publisher.start()
    publisher.open(ObjectBuilder().build(Frame.of(0, np.zeros((SIDE, SIDE), np.uint64))))
    server.start()
    if not options.go:
        sys.stdin.readline()
    with Record(options.record) as record:
        _publish(options, publisher, record, account, keeper, stop)
    keeper.write(final=False)
    sys.stdout.write("done\n")
    sys.stdout.flush()
    threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
    while not stop.wait(60):
        pass
    publisher.finish(5)
    keeper.close()
    server.stop()
    publisher.stop()
    # The binding's threads need no farewell.
    os._exit(0)


def _settings(options: argparse.Namespace) -> PvaSettings | None:
    """Those of the package's own server, if the source keeps what it has published."""
    if not options.keep_past:
        return None
    settings = PvaSettings.of(keep_past=options.keep_past, pva_overflow=options.overflow)
    # The port of the environment is for its server.
    source_mode(options.mode).prepare(settings)
    return settings


def _publish(
    options: argparse.Namespace,
    publisher: Publisher,
    record: Record,
    account: Account,
    keeper: LedgerKeeper,
    stop: threading.Event,
) -> None:
    builder, draw = ObjectBuilder(), random.Random(options.seed)
    start, last = time.monotonic(), 0
    for n, value in enumerate(ids(options.ids, options.n, options.seed)):
        if stop.wait(max(0.0, start + n / options.rate - time.monotonic())):
            return
        if value <= last:
            account.begin_epoch()
        last = value
        number = options.first_number + n
        image = pixels_of(value, number)
        frame, kind = Frame.of(value, image, time_ns=time.time_ns()), 0
        if options.damage and draw.randrange(_DAMAGED_ONE_IN) == 0:
            frame, kind = damaged(image, draw).replace(id=value, time_ns=time.time_ns()), DAMAGED
        obj = LazyObject(frame, builder.build) if options.mode != "pva" else builder.build(frame)
        record.begin(number, value, kind)
        publisher.publish(obj)
        record.sent(number, value, kind)
        account.ledger.publish(value)
        keeper.keep()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m chaos.source", description=__doc__)
    parser.add_argument("channel")
    parser.add_argument("--mode", choices=("pva", "shm", "both"), default="pva")
    parser.add_argument("--ids", choices=ID_KINDS, default="plain")
    parser.add_argument("--n", type=int, default=400, help="how many frames")
    parser.add_argument("--rate", type=float, default=300.0, help="frames/s")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first-number", type=int, default=1, help="number of the first frame")
    parser.add_argument("--record", type=Path, required=True, help="binary record of all frames")
    parser.add_argument("--ledger", help="write a ledger, as our own programs do")
    parser.add_argument("--damage", action="store_true", help="damage some payloads")
    parser.add_argument("--keep-past", type=float, default=0.0, help="MB; on our own server")
    parser.add_argument("--overflow", default="block", help="policy of our own server")
    parser.add_argument("--go", action="store_true", help="begin at once")
    return parser


if __name__ == "__main__":
    main()
