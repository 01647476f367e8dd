"""Environments with packages of others from the package index, in the folder for caches."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.programs import PROJECT

PACKAGES = ("ophyd-async[ca,pva]", "bluesky", "ophyd", "pyepics", "tiled[client,server]")

_INSTALLS = 900.0  # s


def _folder(name: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return cache / "pvapy_stream" / f"{name}-{version}"


def tiled_python(wanted: bool) -> Path:
    """The Python of an environment with what this package and its extra `tiled` need."""
    extra = PROJECT["optional-dependencies"]["tiled"]
    return python(wanted, "tiled", (*PROJECT["dependencies"], *extra))


def python(wanted: bool, name: str = "bluesky", packages: tuple[str, ...] = PACKAGES) -> Path:
    """The Python of an environment, which is made if tests of foreign packages are asked for.

    Args:
        wanted: whether it is to be made.
        name: of the environment.
        packages: what it has.
    """
    folder = _folder(name)
    ready = folder / "ready"
    found = folder / "bin" / "python"
    wish = "\n".join(packages)

    def is_ready() -> bool:
        return ready.exists() and ready.read_text() == wish

    if not is_ready() and not wanted:
        pytest.skip(f"{name} is not installed yet; install it, and run this, with: make foreign")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        # One of several processes of the tests makes it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_ready():
            _make(folder, found, name, packages)
            ready.write_text(wish)
    return found


def _make(folder: Path, found: Path, name: str, packages: tuple[str, ...]) -> None:
    try:
        for command in (
            [sys.executable, "-m", "venv", str(folder)],
            [str(found), "-m", "pip", "install", "-q", *packages],
        ):
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_INSTALLS, env=clean()
            )
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["?"])[-1]
                pytest.skip(f"{name} cannot be installed: {last}")
    except subprocess.TimeoutExpired:
        pytest.skip(f"{name} could not be installed within {_INSTALLS:g} s")


def clean() -> dict[str, str]:
    """The environment variables, without those that would let it find this package."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
