"""The published examples of PvaPy's streaming framework, with its programs and with ours.

An image goes through both at the same time; what comes out at their ends is compared.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path

import pvaccess as pva
import pytest

from tests.incumbent.published import EXAMPLES, Example
from tests.incumbent.running import Run
from tests.ports import free_port
from tests.support import PATIENCE, get, pvget, pvput, wait_until

# They start some two hundred programs, of which PvaPy's lose images on a loaded machine.
pytestmark = pytest.mark.skipif(
    not os.environ.get("PVAPY_PUBLISHED"),
    reason="takes minutes of a quiet machine: make test-published",
)

SIZES = {"1920": "8", "1080": "4", "3840": "16", "2160": "8"}
PROCESSORS = Path(__file__).with_name("processors.py")


def words(prefix: str, folder: Path) -> dict[str, str]:
    folder.mkdir()
    ports = {f"@PORT_{number}": str(free_port()) for number in range(1, 7)}
    return {
        **SIZES, "~": prefix, "@FILE": str(PROCESSORS), "@FOLDER": str(folder),
        "@KEY": str(folder.parent / "key.pem"), "@DBD": str(Path(pva.__file__).parent / "dbd"),
        **ports,
    }  # fmt: skip


ALL = 99  # all commands of an example


@pytest.fixture
def runs(example: Example, prefix: str, tmp_path: Path) -> Iterator[Callable[..., list[Run]]]:
    """Makes runs of the example, by how many of its commands are PvaPy's."""
    if example.name == "encryption":
        rsa = pytest.importorskip("rsa", reason="part of pvapy-stream[dev]")
        (tmp_path / "key.pem").write_bytes(rsa.newkeys(1024)[1].save_pkcs1())
    made: list[Run] = []

    def make(*theirs: int) -> list[Run]:
        made.extend(Run(example, n, words(f"{prefix}{n}", tmp_path / str(n))) for n in theirs)
        return made

    yield make
    for run in made:
        run.close()


def start(runs: list[Run]) -> None:
    """Start all programs; those of one run while those of another get ready."""
    for steps in zip_longest(*(run.steps() for run in runs), fillvalue=()):
        for run, step in zip(runs, steps, strict=True):
            for command in step:
                run.start(command)
        for run, step in zip(runs, steps, strict=True):
            run.wait_for(step)
    for run in runs:
        run.watch()
    for run in runs:
        run.wait_for_images()


def check(run: Run) -> None:
    """What comes out at the end, and what is reported, is what the example promises."""
    example = run.example
    if example.loses:
        first, last = run.reported("firstObjectId"), run.reported("lastObjectId")
        assert run.reported("nProcessed") + run.reported("nMissed") == last - first + 1
        return
    assert run.shape() == example.shape
    assert run.reported("nProcessed") >= len(run.window()) // example.n
    if example.n == 1:
        # Of several, those that come last may have been missed by the first: the pattern changes.
        assert run.reported("nMissed") == 0
    saved = [path.name for path in Path(run.words["@FOLDER"]).iterdir()]
    assert all(re.fullmatch(r"bdp_\d{6}\.[1-4]\.tiff", name) for name in saved)
    assert len(saved) >= len(run.window()) * example.files


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_published(example: Example, runs: Callable[..., list[Run]]) -> None:
    both = runs(ALL, 0)
    start(both)
    for run in both:
        for end in run.ends if example.attributes else ():
            wanted = {run.text(name) for name in example.attributes}
            wait_until(lambda end=end, wanted=wanted: wanted <= attributes(end), what=f"{wanted}")
        if example.name == "single":
            interact(run)
    theirs, ours = both
    # PvaPy's take seconds to end; what they still process does not matter.
    theirs.interrupt(wait=False)
    ours.interrupt(wait=True)
    for run in both:
        run.wait()
        check(run)
    assert ours.codes() == {0}, ours.log


def attributes(channel: str) -> set[str]:
    return {one["name"] for one in get(channel, "attribute")}


def interact(run: Run) -> None:
    """What the first example types while it runs: read, configure, and stop."""
    name = run.text("~consumer:1:{}").format
    shown = wait_until(lambda: (s := pvget(name("status")))["inputChannel"] and s, what="status")
    assert shown["inputChannel"] == run.text("~pvapy:image")
    assert {"receiverStats", "publisherStats", "queueStats", "processorStats"} <= set(shown)
    pvput(name("control"), command="configure", args='{"x":100}')
    wait_until(lambda: pvget(name("status"))["userStats"]["x"] == 100, what="x at the status")
    assert "successful" in pvget(name("control"))["statusMessage"]
    pvput(name("control"), command="stop")
    # The consumer is the last command of PvaPy's and the first of ours.
    run.programs[-1 if run.theirs else 0].wait(PATIENCE)


@pytest.mark.parametrize(
    "example", [one for one in EXAMPLES if one.name in ("chain", "stitch", "encryption")],
    ids=lambda example: example.name,
)  # fmt: skip
def test_the_first_half_by_pvapy_and_the_second_by_ours(
    example: Example, runs: Callable[..., list[Run]]
) -> None:
    # The simulator, the mirror server and the first consumers are PvaPy's.
    (run,) = runs(3)
    start([run])
    run.interrupt(wait=True)
    assert run.shape() == example.shape
    assert run.codes() == {0}, run.log
