"""EPICS on loopback and on ports of this run alone, before anything imports it."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.ports import free_port

os.environ.update(
    {
        "EPICS_PVA_ADDR_LIST": "127.0.0.1",
        "EPICS_PVA_AUTO_ADDR_LIST": "NO",
        "EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1",
        "EPICS_PVAS_BEACON_ADDR_LIST": "127.0.0.1",
        "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
        "EPICS_CA_ADDR_LIST": "127.0.0.1",
        "EPICS_CA_AUTO_ADDR_LIST": "NO",
        "EPICS_CAS_INTF_ADDR_LIST": "127.0.0.1",
        "EPICS_CAS_BEACON_ADDR_LIST": "127.0.0.1",
        "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO",
        # Runs that go on at the same time must not meet.
        "EPICS_PVA_BROADCAST_PORT": str(free_port()),
        "EPICS_CA_SERVER_PORT": str(free_port()),
        "EPICS_CA_REPEATER_PORT": str(free_port()),
    }
)

from tests.pva.net.partner import Partner
from tests.support import Commands, Source

# No test depends on speed.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So a shell starts what runs in its background, and programs under test would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect tests without looking for garbage; half of the time went into that.

    What is there afterwards, a million objects, is not looked through in tests either.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


# Tests of whole programs: some take as long as a hundred others.
_LONG = ("chaos", "daq", "incumbent", "integration", "mirror", "workflow")


def _rows(items: list[pytest.Item]) -> list[list[pytest.Item]]:
    """The tests, those together that share what their module starts once for each process."""
    rows: dict[object, list[pytest.Item]] = {}
    for item in items:
        fixtures = item._fixtureinfo.name2fixturedefs.values()  # type: ignore[attr-defined]
        shares = any(made[-1].scope == "module" for made in fixtures)
        rows.setdefault(item.path if shares else item, []).append(item)
    return list(rows.values())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run side by side, each process begins with long ones.

    At the end there are short ones only, and no process waits for one that has still a long way.
    """
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if processes == 1:
        return
    here = Path(__file__).parent
    long = [item for item in items if item.path.relative_to(here).parts[0] in _LONG]
    rows = _rows(long)
    short = [item for item in items if item.path.relative_to(here).parts[0] not in _LONG]
    ordered: list[pytest.Item] = []
    for number in range(processes):
        # xdist gives each process so many tests in a row at first.
        size = (len(items) - len(ordered)) // (processes - number)
        own = [item for row in rows[number::processes] for item in row]
        rest = max(0, size - len(own))
        ordered += [*own, *short[:rest]]
        del short[:rest]
    items[:] = [*ordered, *short]


@pytest.fixture
def prefix() -> str:
    """Start of channel names that no other test uses."""
    return f"t{uuid.uuid4().hex[:8]}:"


@pytest.fixture
def source(prefix: str) -> Iterator[Source]:
    """A PVA channel with images, and the means to publish on it."""
    made = Source(f"{prefix}image")
    yield made
    made.close()


@pytest.fixture
def commands() -> Iterator[Commands]:
    """Starts programs; those still running at the end are ended."""
    made = Commands()
    yield made
    made.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True
    )
    if done.returncode:
        pytest.skip(f"cannot mount a small file system: {done.stderr.decode()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def partner() -> Iterator[Callable[..., Partner]]:
    """Starts code in processes of its own, mostly of another make."""
    made: list[Partner] = []

    def start(code: str, *args: str) -> Partner:
        made.append(Partner(code, *args))
        return made[-1]

    yield start
    for one in made:
        one.kill()
