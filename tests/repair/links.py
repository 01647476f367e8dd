"""A source behind a connection that is cut and stalled."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from chaos.proxy import Proxy
from tests.ports import free_port
from tests.support import Commands, Program, get, image, wait_until

N = 1200  # frames
RATE = 300  # frames/s


class Link:
    """A simulator behind a proxy, and what a program needs to find it there alone."""

    def __init__(self, commands: Commands, prefix: str, folder: Path, *options: object) -> None:
        self._commands, self._folder = commands, folder
        self._options = options
        self.channel = f"{prefix}image"
        self._search_port, port, self._port = free_port(), free_port(), free_port()
        self.source = self.start()
        # Clients look only now and then whether a name server has come.
        wait_until(lambda: get(self.channel))
        self.proxy = Proxy(self._search_port, port, self._port)

    @property
    def found_at(self) -> dict[str, object]:
        return {
            "EPICS_PVA_NAME_SERVERS": f"127.0.0.1:{self._search_port}",
            "EPICS_PVA_ADDR_LIST": "",
        }

    def start(self, more: int = 0, clients: int = 1) -> Program:
        """Start the simulator; `more` is added to all pixels, `clients` are waited for."""
        np.save(self._folder / "frames.npy", np.stack([image(n + more) for n in range(1, N + 1)]))
        return self._commands(
            "sim", "-cn", self.channel, "-if", self._folder / "frames.npy", "-fps", RATE,
            "--n-publish", N, "-std", 0, "--wait-for-clients", clients, "-shd", 120, "-rt", 0,
            "-rp", 0, "-dc", "--ledger", self._folder / "sim.json", *self._options,
            EPICS_PVAS_SERVER_PORT=self._port,
        )  # fmt: skip

    def newest(self) -> int:
        """The id that was published last, asked for by another connection."""
        return get(self.channel)["uniqueId"]

    def disturb(self) -> None:
        """Cut and stall the connection, for 100 frames each time, until all are published."""
        for number in range(1, 6):
            wait_until(lambda n=number: self.newest() >= n * N // 6)
            self.proxy.cut() if number % 2 else self.proxy.stall()
            end = min(N, self.newest() + 100)
            wait_until(lambda end=end: self.newest() >= end)
            self.proxy.mend()
        wait_until(lambda: self.newest() == N)


def ids_in(file: Path) -> list[int]:
    """Ids of a file whose images tell the same ids."""
    with h5py.File(file) as opened:
        ids = opened["/entry/data/id"][()].tolist()
        for value, pixels in zip(ids, opened["/entry/data/data"], strict=True):
            assert np.array_equal(pixels, image(value))
    return ids


def audit_of(commands: Commands, *ledgers: Path) -> tuple[int, str]:
    audited = commands("audit", *ledgers)
    return audited.wait(), audited.text
