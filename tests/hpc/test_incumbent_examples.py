"""The incumbent's own processors, those of its package and its examples, run unchanged.

The examples are no part of its package: PVAPY_EXAMPLES names the folder examples/ of a checkout.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.support import (
    Commands,
    Program,
    Source,
    get,
    image,
    status,
    wait_until,
    write_processor,
)

FOLDER = os.environ.get("PVAPY_EXAMPLES", "")
examples = pytest.mark.skipif(not FOLDER, reason="PVAPY_EXAMPLES names no folder")
N = 10

# Written like the multiprocessing class of the examples: it takes no configuration.
MP_PROCESSOR = """
import multiprocessing as mp
from pvapy.hpc.userMpDataProcessor import UserMpDataProcessor
from pvapy.hpc.userMpWorkerController import UserMpWorkerController

class Inner(UserMpDataProcessor):
    def __init__(self):
        UserMpDataProcessor.__init__(self)
        self.sum = 0
    def process(self, mpqObject):
        self.sum += int(mpqObject['value'][0]['ushortValue'].sum())
        return mpqObject
    def getStats(self):
        return {'sum': self.sum}

class Outer(UserMpDataProcessor):
    def __init__(self):
        UserMpDataProcessor.__init__(self)
        self.queue = mp.Queue()
        self.controller = UserMpWorkerController(1, Inner(), self.queue)
    def start(self):
        self.controller.start()
    def process(self, mpqObject):
        self.queue.put(mpqObject)
        return mpqObject
    def getStats(self):
        return self.controller.getStats()
    def getStatsPvaTypes(self):
        import pvaccess
        return {'sum': pvaccess.LONG}
    def stop(self):
        self.controller.stop()
"""


def processed(channel: str) -> int:
    return status(channel)["processorStats"]["nProcessed"]


def alive(program: Program) -> bool:
    assert program.process.poll() is None, program.text
    return True


def received(channel: str) -> int:
    return status(channel)["receiverStats"]["nReceived"]


def run(
    commands: Commands,
    source: Source,
    prefix: str,
    *options: str,
    results: str = "nProcessed",
    behind: str = "",
) -> Program:
    """A consumer that has taken N images; `behind`: status of one that takes its output."""
    stat = f"{prefix}status"
    program = commands(
        "consumer", "-ic", source.channel, "-sc", stat, "-sqs", "100", "-rqs", "100", *options
    )
    wait_until(lambda: alive(program) and received(stat), what="first update")
    if behind:
        wait_until(lambda: received(behind), what="the opened output")
    source.publish(range(1, N + 1))
    wait_until(
        lambda: alive(program) and status(stat)["processorStats"][results] == N,
        what=f"{N} {results}",
    )
    return program


def end(*programs: Program) -> None:
    for program in programs:
        program.signal()
        assert program.wait() == 0, program.text


def example(file: str, name: str, **args: Any) -> list[str]:
    return ["-pf", str(Path(FOLDER) / f"{file}.py"), "-pc", name, "-pa", json.dumps(args)]


def test_a_class_that_takes_no_configuration(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    file = str(write_processor(tmp_path, MP_PROCESSOR))
    end(run(commands, source, prefix, "-pf", file, "-pc", "Inner"))


def test_a_class_that_starts_a_process_of_its_own(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    file = str(write_processor(tmp_path, MP_PROCESSOR))
    program = run(commands, source, prefix, "-pf", file, "-pc", "Outer")
    total = sum(int(image(k).sum()) for k in range(1, N + 1))
    wait_until(lambda: status(f"{prefix}status")["userStats"]["sum"] == total)
    children = psutil.Process(program.process.pid).children(recursive=True)
    end(program)
    assert not [child for child in children if child.is_running()]


def test_encryption_and_back(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    rsa = pytest.importorskip("rsa")
    key = tmp_path / "key.pem"
    key.write_bytes(rsa.newkeys(1024)[1].save_pkcs1())
    args = json.dumps({"privateKeyFilePath": str(key), "sign": True, "verify": True})
    sealed, plain, stat = f"{prefix}sealed", f"{prefix}plain", f"{prefix}status:2"
    kind = "pvapy.hpc.adImageData{0}or.AdImageData{0}or".format
    last = commands(
        "consumer", "-ic", sealed, "-oc", plain, "-sc", stat, "-of", "objectId", "-pc",
        kind("Decrypt"), "-pa", args, "-sqs", "100", "-rqs", "100",
    )  # fmt: skip
    wait_until(lambda: status(stat))
    kinds = ["-pc", kind("Encrypt"), "-pa", args]
    first = run(commands, source, prefix, "-oc", sealed, *kinds, behind=stat)
    wait_until(lambda: get(plain, "uniqueId") == N, what="the last image, decrypted")
    value = get(plain)["value"][0]["ushortValue"]
    assert np.array_equal(value.reshape(4, 6), image(N))
    end(last, first)


@pytest.mark.parametrize(
    ("name", "suffix", "args"),
    [
        ("hdf5AdImageWriter.Hdf5AdImageWriter", "*", {"nImagesPerFile": 5}),
        ("adOutputFileProcessor.AdOutputFileProcessor", "*", {}),
    ],
)
def test_files(
    prefix: str,
    source: Source,
    commands: Commands,
    tmp_path: Path,
    name: str,
    suffix: str,
    args: dict[str, Any],
) -> None:
    pytest.importorskip("PIL")
    words = json.dumps({"outputDirectory": str(tmp_path), **args})
    end(run(commands, source, prefix, "-pc", f"pvapy.hpc.{name}", "-pa", words))
    assert list(tmp_path.glob(suffix))


@examples
@pytest.mark.parametrize(
    ("file", "name", "args", "expected"),
    [
        ("hpcAdImageProcessorExample", "HpcAdImageProcessor", {}, lambda: image(N).T),
        (
            "hpcAdImageMovingAverageProcessor",
            "HpcAdImageMovingAverageProcessor",
            {"nImages": 2},
            lambda: image(N) - 1,
        ),
    ],
)
def test_images(
    prefix: str,
    source: Source,
    commands: Commands,
    file: str,
    name: str,
    args: dict[str, Any],
    expected: Callable[[], np.ndarray],
) -> None:
    out = f"{prefix}out"
    program = run(commands, source, prefix, "-oc", out, *example(file, name, **args))
    wait_until(lambda: get(out, "uniqueId") == N)
    value = get(out)["value"][0]["ushortValue"]
    assert np.array_equal(value, expected().ravel())
    assert status(f"{prefix}status")["userStats"]["nProcessed"] == N
    end(program)


@examples
@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("hpcDataProcessorExample", "HpcDataProcessor"),
        ("umpDataProcessorExample", "UmpDataProcessor"),
        ("umpDataProcessorExample", "UmpDataProcessor2"),
    ],
)
@pytest.mark.parametrize("out", [False, True])
def test_processors_without_an_output_of_their_own(
    prefix: str, source: Source, commands: Commands, file: str, name: str, out: bool
) -> None:
    output = ["-oc", f"{prefix}out"] if out else []
    # The first says that it has no output; the others have one and put nothing on it.
    results = "nFiltered" if out and name.startswith("Ump") else "nProcessed"
    end(run(commands, source, prefix, *output, *example(file, name), results=results))


@examples
def test_split_and_stitch(prefix: str, source: Source, commands: Commands) -> None:
    tiles, out, stat = f"{prefix}tiles", f"{prefix}out", f"{prefix}status:2"
    last = commands(
        "consumer", "-ic", tiles, "-oc", out, "-sc", stat, "-sqs", "100", "-rqs", "100",
        *example("stitchAdImageProcessorExample", "StitchAdImageProcessor", nx=6, ny=4),
    )  # fmt: skip
    wait_until(lambda: status(stat))
    split = example("splitAdImageProcessorExample", "SplitAdImageProcessor", nx=3, ny=2)
    first = run(commands, source, prefix, "-oc", tiles, *split, behind=stat)
    wait_until(lambda: get(out, "uniqueId") == N, what="the last image, stitched")
    value = get(out)["value"][0]["ushortValue"]
    assert np.array_equal(value.reshape(4, 6), image(N))
    end(first, last)


@examples
def test_metadata(prefix: str, commands: Commands) -> None:
    channel, out, stat, name = (f"{prefix}{n}" for n in ("image", "out", "status", "m"))
    sim = commands(
        "sim", "-cn", channel, "-nx", "6", "-ny", "4", "-nf", "5", "-fps", "20", "-mpv",
        f"pva://{name}", "--n-publish", "40", "--wait-for-stages", stat, "-shd", "20", "-dc",
    )  # fmt: skip
    args = example("hpcAdMetadataProcessorExample", "HpcAdMetadataProcessor")
    program = commands(
        "consumer", "-ic", channel, "-oc", out, "-sc", stat, "-mc", f"pva://{name}", "-sqs", "100",
        "-rqs", "100", *args,
    )  # fmt: skip
    wait_until(lambda: processed(stat) == 40, what="all frames")
    user = status(stat)["userStats"]
    assert user["nFramesProcessed"] + user["nFrameErrors"] == 40
    assert user["nFramesProcessed"] == user["nMetadataProcessed"] > 0
    end(program, sim)
