"""The published examples of PvaPy's streaming framework, with its programs and with ours."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pvaccess as pva
import pytest

from pvapy_stream.accounting.idset import IdSet
from tests.incumbent.published import EXAMPLES, Example
from tests.incumbent.running import PvapyError, Run
from tests.ports import free_port
from tests.support import PATIENCE, get, pvget, pvput, wait_until

on_request = pytest.mark.skipif(
    not os.environ.get("PVAPY_PUBLISHED"), reason="takes minutes: make test-published"
)
# Those that are soon done, one of each kind. Firewall, encryption, sets, metadata over PVAccess and
# long chains are run for each change by tests/integration, with other options.
QUICK = {
    "single", "multiple", "distribution", "protection-none", "protection-server-queue",
    "protection-overwhelmed", "metadata-collector-ca", "throughput-metadata-single",
}  # fmt: skip

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


_log = logging.getLogger(__name__)

ALL = 99  # all commands of an example
ATTEMPTS = 3  # with programs of PvaPy


@pytest.fixture
def runs(example: Example, prefix: str, tmp_path: Path) -> Iterator[Callable[[int], Run]]:
    """Makes runs of the example, by how many of its commands are PvaPy's; one after the other."""
    if example.name == "encryption":
        rsa = pytest.importorskip("rsa", reason="part of pvapy-stream[dev]")
        (tmp_path / "key.pem").write_bytes(rsa.newkeys(1024)[1].save_pkcs1())
    made: list[Run] = []

    def make(theirs: int) -> Run:
        for run in made:
            run.close()
        number = len(made)
        made.append(Run(example, theirs, words(f"{prefix}{number}", tmp_path / str(number))))
        return made[-1]

    yield make
    for run in made:
        run.close()


def go(run: Run) -> None:
    """Start all programs, let images go through, and end them."""
    for step in run.steps():
        for command in step:
            run.start(command)
        run.wait_for(step)
    run.watch()
    run.wait_for_images()
    wanted = {run.text(name) for name in run.example.attributes}
    for end in run.ends if wanted else ():
        wait_until(lambda end=end: wanted <= attributes(end), what=f"{wanted}")
    if run.example.name == "single":
        interact(run)
    run.stop()


def with_pvapy(make: Callable[[], Run], check: Callable[[Run], None]) -> None:
    """Run the example until PvaPy's programs do their part."""
    faults: list[str] = []
    while len(faults) < ATTEMPTS:
        run = make()
        try:
            go(run)
            check(run)
        except PvapyError as fault:
            faults.append(str(fault))
            _log.warning("attempt %d: %s", len(faults), fault)
            continue
        return
    pytest.fail("\n\n".join(faults))


def check(run: Run) -> None:
    """What comes out at the end, and what is reported, is what the example promises."""
    example = run.example
    if example.loses:
        check_losses(run)
        return
    assert run.shape() == example.shape
    assert run.reported("nProcessed") >= len(run.window()) // example.n
    if example.n == 1 and run.reported("nMissed"):
        # Of several, those that come last may have been missed by the first: the pattern changes.
        raise (PvapyError if run.theirs else AssertionError)(f"some missed\n{run.log}")
    saved = [path.name for path in Path(run.words["@FOLDER"]).iterdir()]
    assert all(re.fullmatch(r"bdp_\d{6}\.[1-4]\.tiff", name) for name in saved)
    assert len(saved) >= len(run.window()) * example.files


def check_losses(run: Run) -> None:
    """No image is lost without being counted."""
    if run.theirs:
        first, last = run.reported("firstObjectId"), run.reported("lastObjectId")
        counted = run.reported("nProcessed") + run.reported("nMissed")
        # PvaPy's counts an object that it has not processed yet as its last.
        assert last - first + 1 - counted in (0, 1), run.log
        return
    (account,) = run.accounts()
    assert not account.without_fate()
    known = account.received | account.missed
    assert known.first is not None
    assert known.last is not None
    assert known == IdSet.of_range(known.first, known.last)
    told = run.reported("nProcessed"), run.reported("nMissed")
    assert told == (len(account.processed), len(account.missed))


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


def name_of(example: Example) -> str:
    return example.name


@pytest.mark.parametrize(
    "example",
    [pytest.param(one, marks=[on_request] * (one.name not in QUICK)) for one in EXAMPLES],
    ids=name_of,
)
def test_with_our_programs(example: Example, runs: Callable[[int], Run]) -> None:
    run = runs(0)
    go(run)
    check(run)
    assert run.codes() == {0}, run.log


@on_request
@pytest.mark.timeout(900)
@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_with_programs_of_pvapy(example: Example, runs: Callable[[int], Run]) -> None:
    """What is expected of ours is what PvaPy's do."""
    with_pvapy(lambda: runs(ALL), check)


@on_request
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "example", [one for one in EXAMPLES if one.name in ("chain", "stitch", "encryption")],
    ids=name_of,
)  # fmt: skip
def test_the_first_half_by_pvapy_and_the_second_by_ours(
    example: Example, runs: Callable[[int], Run]
) -> None:
    def check_ours(run: Run) -> None:
        assert run.shape() == example.shape
        assert run.codes() == {0}, run.log

    # The simulator, the mirror server and the first consumers are PvaPy's.
    with_pvapy(lambda: runs(3), check_ours)
