"""Scans of an unmodified ophyd-async, which drives the writer; Tiled serves their files."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pvapy_stream.cli.main import main
from tests.areadetector.bluesky_environment import clean, python
from tests.areadetector.clients import Plugin, ids_in
from tests.areadetector.tiled_server import TiledServer
from tests.support import PATIENCE, Commands, Source, wait_until

# The first one installs Bluesky.
pytestmark = [pytest.mark.foreign, pytest.mark.timeout(1500)]

_ROOT = Path(__file__).parents[2]
FRAMES = 100


@pytest.fixture(scope="module")
def bluesky(request: pytest.FixtureRequest) -> Path:
    return python("foreign" in (request.config.getoption("-m") or ""))


def scan(bluesky: Path, plugin: Plugin, name: str, frames: int, **asked: object) -> dict[str, Any]:
    """Run the example's plan; the documents, and what else it says."""
    done = subprocess.run(
        [
            bluesky,
            Path(__file__).with_name("bluesky_partner.py"),
            json.dumps(
                {
                    "example": str(_ROOT / "examples" / "bluesky_scan.py"),
                    "prefix": plugin.prefix,
                    "name": name,
                    "folder": str(plugin.folder),
                    "frames": frames,
                    **asked,
                }
            ),
        ],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        env=clean(),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def of(said: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [document for kind, document in said["documents"] if kind == name]


@pytest.fixture
def simulated(prefix: str, commands: Commands, tmp_path: Path) -> tuple[str, np.ndarray]:
    """A simulator that begins when two clients are there; its pixels tell ids."""
    images = np.arange(1, FRAMES + 1, dtype=np.uint16)[:, None, None] * np.ones(
        (1, 16, 32), np.uint16
    )
    np.save(tmp_path / "images.npy", images)
    channel = f"{prefix}image"
    commands(
        "sim", "-cn", channel, "-if", tmp_path / "images.npy", "-fps", 50, "-dc", "-rp", 0,
        "--wait-for-clients", 2, "--wait-timeout", 200, "-rt", 300, "--n-publish", FRAMES,
        "-std", 60,
    )  # fmt: skip
    return channel, images


@pytest.fixture
def tiled(bluesky: Path, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A Tiled server that may read the files: its address and key."""
    files = tmp_path / "files"
    files.mkdir(exist_ok=True)
    with TiledServer(bluesky, "--temp", "--read", files) as server:
        yield server.address, server.key


@pytest.mark.parametrize("protocol", ["pva", "ca"])
def test_a_scan_of_ophyd_async_has_all_images(
    protocol: str,
    bluesky: Path,
    simulated: tuple[str, np.ndarray],
    prefix: str,
    commands: Commands,
    tmp_path: Path,
) -> None:
    channel, images = simulated
    files = tmp_path / "files"
    files.mkdir()
    plugin = Plugin(commands, prefix, channel, files, "--channel-access")
    wait_until(lambda: plugin.get("ArraySizeX_RBV") == 32, what="the form of images")
    address = f"{protocol}://{plugin.prefix}"
    said = scan(bluesky, plugin, "scan", FRAMES, channel=channel, prefix=address)
    assert "error" not in said, said["error"]
    path = files / "scan.h5"
    [descriptor] = of(said, "descriptor")
    key = descriptor["data_keys"]["detector"]
    assert (key["shape"], key["dtype_numpy"]) == ([1, 16, 32], "<u2")
    resource = next(one for one in of(said, "stream_resource") if one["data_key"] == "detector")
    assert resource["uri"] == f"file://localhost{path}"
    assert resource["mimetype"] == "application/x-hdf5"
    assert resource["parameters"] == {"dataset": "/entry/data/data", "chunk_shape": [1, 16, 32]}
    found = [one for one in of(said, "stream_datum") if one["stream_resource"] == resource["uid"]]
    # Without gaps and overlaps, from the first image to the last.
    bounds = [(one["indices"]["start"], one["indices"]["stop"]) for one in found]
    assert [bounds[0][0], *(stop for _, stop in bounds)] == [
        *(start for start, _ in bounds),
        FRAMES,
    ]
    [stop] = of(said, "stop")
    assert (stop["exit_status"], stop["num_events"]) == ("success", {"primary": FRAMES})
    with h5py.File(path) as file:
        stored = file["entry/data/data"]
        assert stored.chunks == tuple(resource["parameters"]["chunk_shape"])
        assert np.array_equal(stored[()], images)
        assert file["entry/data/id"][()].tolist() == list(range(1, FRAMES + 1))
        for one in of(said, "stream_resource"):
            assert file[one["parameters"]["dataset"]].shape[0] == FRAMES
    assert main(["verify", "--deep", str(path)]) == 0
    assert plugin.get("WriteStatus") == 0
    plugin.program.signal()
    assert plugin.program.wait() == 0


def test_a_lost_image_fails_the_scan(
    bluesky: Path, prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    plugin = Plugin(commands, prefix, source.channel, tmp_path)
    plugin.connected(source)
    ids = [number for number in range(plugin.last + 1, 10**6) if number != plugin.last + 20]
    over = threading.Event()

    def publish() -> None:
        wait_until(lambda: plugin.get("Capture_RBV") == 1)
        for number in ids:
            if over.wait(0.02):
                return
            source.publish([number], 0)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        said = scan(bluesky, plugin, "scan", FRAMES)
    finally:
        over.set()
        thread.join()
    # The source goes on, and so there are more images than were asked for.
    assert "TimeoutError" in said["error"] or "timeout" in said["error"].lower()
    assert of(said, "stop")[0]["exit_status"] == "fail"
    last = max(one["indices"]["stop"] for one in of(said, "stream_datum"))
    assert last == 19 == plugin.get("NumCaptured_RBV")
    assert "did not arrive" in plugin.get("WriteMessage")


def test_a_refused_folder_fails_the_scan(
    bluesky: Path, prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    plugin = Plugin(commands, prefix, source.channel, tmp_path)
    said = scan(bluesky, plugin, "scan", 1, folder="/etc")
    assert "is not below" in said["error"]
    # The file of the scan before is never replaced.
    (tmp_path / "scan.h5").write_text("precious")
    said = scan(bluesky, plugin, "scan", 1)
    assert said["error"]
    assert "is not replaced" in plugin.get("WriteMessage")
    assert (tmp_path / "scan.h5").read_text() == "precious"


def test_tiled_serves_what_was_scanned(
    bluesky: Path,
    tiled: tuple[str, str],
    simulated: tuple[str, np.ndarray],
    prefix: str,
    commands: Commands,
    tmp_path: Path,
) -> None:
    channel, images = simulated
    plugin = Plugin(commands, prefix, channel, tmp_path / "files", "--compression", "bslz4")
    wait_until(lambda: plugin.get("ArraySizeX_RBV") == 32, what="the form of images")
    address, key = tiled
    said = scan(bluesky, plugin, "scan", FRAMES, channel=channel, tiled=address, key=key)
    assert "error" not in said
    read = said["read"]
    assert (read["shape"], read["dtype"]) == ([FRAMES, 16, 32], "uint16")
    assert np.array_equal(np.array(read["pixels"]), images.reshape(FRAMES, -1))


def test_ophyd_captures_images(
    bluesky: Path, prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    plugin = Plugin(commands, prefix, source.channel, tmp_path, "--channel-access")
    plugin.connected(source)
    ids = [*range(plugin.last + 1, plugin.last + FRAMES + 1)]
    partner = subprocess.Popen(
        [
            bluesky, Path(__file__).with_name("ophyd_partner.py"), plugin.prefix, tmp_path, "scan",
            str(FRAMES),
        ],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=clean(),
    )  # fmt: skip
    wait_until(
        lambda: partner.poll() is not None or plugin.get("Capture_RBV") == 1, what="the capture"
    )
    source.publish(ids, 0.01)
    told, _ = partner.communicate(timeout=PATIENCE)
    assert partner.returncode == 0, told
    said = json.loads(told.splitlines()[-1])
    path = tmp_path / "scan.h5"
    assert said == {"captured": FRAMES, "file": str(path), "status": "Write OK", "capturing": 0}
    assert ids_in(path) == ids
    assert main(["verify", "--deep", str(path)]) == 0
