"""The scripts of examples/chains: exact ids at every stage, and every pixel at the end."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 - so that compressed images can be read
import numpy as np
import pytest

from pvapy_stream.accounting.ledger import Ledger, read_ledgers
from pvapy_stream.cli.main import load
from pvapy_stream.cli.options import parse
from pvapy_stream.cli.settings_command import SettingsCommand
from tests.support import rounds

N = 90
IDS = list(range(1, N + 1))
SCRIPTS = Path(__file__).parents[2] / "examples" / "chains"
# What a script calls instead of programs, to write down their options, and instead of ending them.
NOTES = {
    "BASH_FUNC_pvapy-stream%%": """() { printf '%s\\0' "$@" > "$WORK/$BASHPID.$RANDOM.words"; }""",
    "BASH_FUNC_kill%%": "() { true; }",
}
# Those whose parts are in other scripts and tests too: a shared stream and a collector, a consumer
# with metadata channels.
more = pytest.mark.skipif(rounds(1) == 1, reason="run by make test-more")


class Chain:
    """A script that ran, with its ledgers and files."""

    def __init__(self, folder: Path, images: np.ndarray) -> None:
        self.folder = folder
        self.images = images

    def ledgers(self, name: str) -> list[Ledger]:
        """Ledgers of a program: one for each stage, or for each producer of a collector."""
        return read_ledgers(self.folder / f"{name}.json")

    def processed(self, name: str) -> list[list[int]]:
        """Ids in each ledger of a program, that with the smallest first."""
        return sorted(list(ledger.processed) for ledger in self.ledgers(name))

    def saved(self, name: str) -> dict[str, Any]:
        with h5py.File(self.folder / name) as file:
            columns = {key: column[...] for key, column in _columns(file)}
            return {"id": file["entry/data/id"][...].tolist(), "data": file["entry/data/data"][...],
                    **columns}  # fmt: skip

    def is_whole(self, name: str, work: Callable[[np.ndarray], np.ndarray] = lambda a: a) -> bool:
        """Whether a file has all images, worked on as they should be, in the order of ids."""
        saved = self.saved(name)
        return saved["id"] == IDS and np.array_equal(
            saved["data"], np.array([work(image) for image in self.images])
        )


def _columns(file: h5py.File) -> list[tuple[str, Any]]:
    group = file.get("entry/attributes", {})
    return [(name, group[name]["value"] if isinstance(group[name], h5py.Group) else group[name])
            for name in group]  # fmt: skip


def run(name: str, folder: Path, **env: str) -> Chain:
    """Run a script to its end."""
    images = np.random.default_rng(7).integers(0, 60000, (N, 47, 65)).astype(np.uint16)
    np.save(folder / "frames.npy", images)
    work = folder / name
    work.mkdir()
    done = subprocess.run(
        ["bash", SCRIPTS / f"{name}.sh"],
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "N": str(N),
            "INPUT": str(folder / "frames.npy"),
            "PREFIX": f"t{uuid.uuid4().hex[:8]}:",
            "WORK": str(work),
            **env,
        },
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Chain(work, images)


@pytest.fixture
def chain(request: pytest.FixtureRequest, tmp_path: Path) -> Chain:
    """The chain of the script that the test is named after, or its parameter, when it has ended."""
    test = request.node
    name = test.callspec.params["name"] if hasattr(test, "callspec") else test.originalname
    return run(name.removeprefix("test_"), tmp_path)


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in SCRIPTS.glob("*.sh") if path.stem != "common")
)
def test_all_options_are_known(tmp_path: Path, name: str) -> None:
    """Also of the scripts that are not run."""
    folder = run(name, tmp_path, **NOTES).folder
    given = [path.read_text().split("\0")[:-1] for path in folder.glob("*.words")]
    assert {"sim", "audit"} < {command for command, *_ in given}
    for command, *words in given:
        made = load(command).COMMAND
        if isinstance(made, SettingsCommand):
            parse(made.model, made.parser(), words)
        else:
            made.parser().parse_args(words)


def halves(first: int) -> list[int]:
    return list(range(first, N + 1, 2))


def test_chain_of_consumers(chain: Chain) -> None:
    for name in ("transpose", "bin", "write"):
        assert chain.processed(name) == [IDS]

    def work(image: np.ndarray) -> np.ndarray:
        turned = image.T[:64, :46].astype(np.uint32)
        return turned.reshape(32, 2, 23, 2).sum((1, 3))

    assert chain.is_whole("binned.h5", work)


def test_parallel_chains(chain: Chain) -> None:
    assert chain.processed("transpose") == [halves(1), halves(2)]
    assert chain.processed("write") == [halves(1), halves(2)]
    assert not any(ledger.missed for ledger in chain.ledgers("write"))
    assert sorted(chain.saved(f"half.{k}.h5")["id"] for k in (1, 2)) == [halves(1), halves(2)]
    assert chain.is_whole("all.h5", np.transpose)


@more
def test_collector(chain: Chain) -> None:
    # Runs of three in turn, whichever consumer is the first.
    assert chain.processed("consumers") == [
        [i for i in IDS if (i - 1) // 3 % 4 == k] for k in range(4)
    ]
    assert chain.processed("collector") == chain.processed("consumers")
    assert chain.processed("write") == [IDS]
    assert chain.is_whole("all.h5", np.transpose)


def test_split_and_stitch(chain: Chain) -> None:
    assert chain.processed("split") == [IDS] * 4
    assert chain.processed("stitch") == [IDS] * 4
    assert chain.is_whole("whole.h5")


@pytest.mark.parametrize(
    "name", ["metadata_with_collector", pytest.param("metadata_with_consumers", marks=more)]
)
def test_metadata(chain: Chain, name: str) -> None:
    assert chain.processed("consumers") == [halves(1), halves(2)]
    assert chain.is_whole("all.h5")
    saved = chain.saved("all.h5")
    for attribute in ("x", "y"):
        values = saved[attribute]
        assert len(values) == N
        assert ((values >= 0) & (values <= 1)).all()
        # Its own value for almost every image: both are published at 200 Hz.
        assert len(np.unique(values)) > N / 2
        assert (np.abs(saved[f"{attribute}:residual_us"]) <= 500_000).all()


def test_saving(chain: Chain) -> None:
    assert chain.processed("save") == [halves(1), halves(2)]
    assert chain.is_whole("scan.h5")


def test_encryption(chain: Chain) -> None:
    for name in ("beamline", "archive", "write"):
        assert chain.processed(name) == [IDS]
    assert chain.is_whole("plain.h5")
