"""Outputs on our own sockets, beside those of the binding: the same for every client."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import pvaccess as pva
import pytest

from pvapy_stream.frame import ColorMode, Frame
from pvapy_stream.pva.lazy import LazyObject
from pvapy_stream.pva.ntndarray import to_frame
from pvapy_stream.pva.objects import mark
from pvapy_stream.transport.own_server import host
from pvapy_stream.transport.ports import Publisher
from tests.pvmonitor import Pvmonitor
from tests.support import PATIENCE, TOOLS, image, pvget, pvput, wait_until
from tests.transport.own_hosted.channels import BUILDER, P4P, Make, frame, lazy

ATTRIBUTES: dict[str, Any] = {
    "int": 1, "long": 2**40, "real": 1.5, "text": "Grüße", "flag": True, "reals": np.arange(3.0),
    "bytes": np.array([-1, 2], np.int8), "words": ["a", "b"], "none": None,
}  # fmt: skip


@pytest.mark.parametrize("kind", [
    "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64",
    "bool",
])  # fmt: skip
def test_images_of_every_type_are_as_with_the_binding(make: Make, prefix: str, kind: str) -> None:
    pixels = image(3, 5, 7).astype(kind)
    shown = []
    for library in ("own", "binding"):
        publisher = make(library, library)
        for number in (1, 2, 3):
            made = Frame.of(
                number, pixels, time_ns=10**18 + 7 * number, attributes={**ATTRIBUTES, "n": number}
            )
            publisher.publish(
                LazyObject(made, BUILDER.build) if library == "own" else BUILDER.build(made)
            )
        obj = pva.Channel(f"{prefix}{library}").get("field()")
        shown.append((obj.toDict(), obj.getStructureDict(), to_frame(obj)))
    (own, structure, got), (binding, structure2, _) = shown
    assert structure == structure2
    assert np.array_equal(got.image, pixels)
    for one in (own, binding):
        one.pop("value")
        for attribute in one["attribute"]:
            value = attribute["value"][0]["value"]
            if isinstance(value, np.ndarray):
                attribute["value"] = (value.dtype.str, value.tolist())
    assert own == binding


def test_colour_and_compressed_images(make: Make, client: Any) -> None:
    publisher = make()
    publisher.open(mark(lazy(0)))
    got = client(publisher.channel)
    got.keeps = True
    colours = Frame.of(1, np.arange(60, dtype=np.uint8).reshape(4, 5, 3), color_mode=ColorMode.RGB2)
    packed = Frame(
        2, np.arange(30, dtype=np.uint8), (4, 4), dtype=np.dtype("uint16"), codec="blosc"
    )
    smaller = Frame(
        3, np.arange(20, dtype=np.uint8), (4, 4), dtype=np.dtype("uint16"), codec="blosc"
    )
    for one in (colours, packed, smaller, frame(4)):
        publisher.publish(LazyObject(one, BUILDER.build))
    wait_until(lambda: len(got.objects) == 4)
    first, second, third, last = map(to_frame, got.objects)
    assert np.array_equal(first.image, colours.image)
    for one, like in ((second, packed), (third, smaller)):
        assert (one.codec, one.dtype, one.stored_shape) == ("blosc", like.dtype, (4, 4))
        assert np.array_equal(one.payload, like.payload)
    assert [o["compressedSize"] for o in got.objects[1:3]] == [30, 20]
    assert last.codec == ""
    assert np.array_equal(last.image, image(4, 8, 8))


def outside(text: str, *args: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", P4P + textwrap.dedent(text), *args],
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_p4p_sees_the_same_type_and_follows(make: Make, prefix: str) -> None:
    for library in ("own", "binding"):
        make(library, library).open(BUILDER.build(frame(0)))
    assert outside(
        """
        a, b = (context.get(name, timeout=20).type() for name in sys.argv[1:])
        print(a.aspy() == b.aspy(), a.getID())
        context.close()
        """,
        f"{prefix}own", f"{prefix}binding",
    ) == "True epics:nt/NTNDArray:1.0\n"  # fmt: skip
    script = """
    got = queue.Queue()
    s = context.monitor(sys.argv[1], got.put, request=sys.argv[2])
    print("up", got.get(timeout=60).uniqueId, flush=True)
    for _ in range(20):
        v = got.get(timeout=60)
        # What is not sent again stays as it was.
        assert v.value.size == 300 * 300 and v.value[0] == v.uniqueId, v
        assert [d.size for d in v.dimension] == [300, 300] and v.attribute[0].value == 5, v
    print("all", flush=True)
    s.close(); context.close()
    """
    publisher = make("own", "followed")
    publisher.open(lazy(0, 300))
    program = subprocess.Popen(
        [sys.executable, "-c", P4P + textwrap.dedent(script), f"{prefix}followed",
         "record[queueSize=50]field()"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert program.stdout is not None
    assert program.stdout.readline() == "up 0\n"
    for number in range(1, 21):
        publisher.publish(lazy(number, 300, attributes={"n": 5}))
    assert program.communicate(timeout=PATIENCE)[0] == "all\n"


def test_the_tools_of_epics(make: Make) -> None:
    publisher = make()
    publisher.open(mark(lazy(0)))
    publisher.publish(lazy(7))
    assert pvget(publisher.channel)["uniqueId"] == 7
    assert "not allowed" in pvput(publisher.channel, uniqueId="8")
    assert pvget(publisher.channel)["uniqueId"] == 7

    def run(*words: object) -> str:
        return subprocess.run(
            [TOOLS / str(words[0]), *map(str, words[1:])],
            capture_output=True, text=True, timeout=PATIENCE,
        ).stdout  # fmt: skip

    assert "epics:nt/NTAttribute:1.0[] attribute" in run("pvinfo", "-w", "10", publisher.channel)
    assert publisher.channel in run("pvlist", f"127.0.0.1:{host.port}").split()
    program = Pvmonitor("field(uniqueId)", publisher.channel)
    try:
        assert program.take(publisher.channel) == {"uniqueId": 7}
        publisher.publish(lazy(8))
        assert program.take(publisher.channel) == {"uniqueId": 8}
    finally:
        program.close()


# What clients ask for, where, and how many of 40 objects are delivered in all.
CONFIGURATIONS = {
    "two share": (["group:g;trigger:uniqueId"] * 2, "_", 40),
    "runs": (["group:g;updates:3;trigger:uniqueId"] * 3, "_", 40),
    "sets": ([f"group:g;set:{s};updates:2;trigger:uniqueId" for s in "aabbc"], "_", 68),
    "sets, one of each": (
        [f"set:{s};mode:one;updates:2;trigger:uniqueId" for s in "aabb"], "_", 40,
    ),
    "two groups": ([f"group:{g};trigger:uniqueId" for g in "xxyyy"], "_", 80),
    "a field": (["group:g;trigger:uniqueId;updates:4"] * 2, "uniqueId", 40),
}  # fmt: skip


def runs_of_ids(publisher: Publisher, client: Any, name: str) -> list[list[int]]:
    options, field, delivered = CONFIGURATIONS[name]
    publisher.open(BUILDER.build(frame(0)))
    alone = client(publisher.channel)
    clients = [
        client(publisher.channel, f"record[queueSize=100]field({field}[pydistributor={one}],value)")
        for one in options
    ]
    for number in range(1, 41):
        publisher.publish(BUILDER.build(frame(number)))
    wait_until(lambda: alone.ids[-1:] == [40])
    wait_until(lambda: sum(len(one.ids) - 1 for one in clients) >= delivered)
    return [one.ids for one in clients]


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_same_runs_of_ids_as_the_plugin_gives(make: Make, client: Any, name: str) -> None:
    # The groups of the plugin are those of a process: it is asked first, and alone.
    binding = runs_of_ids(make("binding", "binding"), client, name)
    own = runs_of_ids(make("own", "own"), client, name)
    assert own == binding
    assert sum(map(len, own)) == CONFIGURATIONS[name][2] + len(own)
