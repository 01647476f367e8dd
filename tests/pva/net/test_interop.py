"""The own server beside clients and servers of other make: the same values for every type."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import numpy as np
import pvaccess as pva
import pytest

from pvapy_stream.pva.net.channel import Channel, Put
from pvapy_stream.pva.net.server import Server
from pvapy_stream.pva.wire.types import (
    DTYPES,
    AnyValue,
    Array,
    ArrayOf,
    Kind,
    Scalar,
    Selected,
    Structure,
    Union,
    Variant,
)
from tests.ports import free_port
from tests.support import BIN, PATIENCE, pvget, pvput

TEXT = Scalar(Kind.STRING)
INNER = Structure("inner_t", (("name", TEXT), ("any", Variant())))
CHOICE = Union("", (("i", Scalar(Kind.INT)), ("a", Array(Kind.DOUBLE)), ("s", INNER)))
NUMBERS = {
    Kind.BYTE: -5, Kind.SHORT: -300, Kind.INT: -70_000, Kind.LONG: -(2**40), Kind.UBYTE: 250,
    Kind.USHORT: 65_000, Kind.UINT: 2**32 - 1, Kind.ULONG: 2**63 + 5, Kind.FLOAT: 1.5,
    Kind.DOUBLE: -1e300,
}  # fmt: skip
KIND = Structure(
    "all_t",
    (
        ("flag", Scalar(Kind.BOOLEAN)),
        *((kind.name.lower(), Scalar(kind)) for kind in NUMBERS),
        ("text", TEXT),
        *((f"{kind.name.lower()}s", Array(kind)) for kind in NUMBERS),
        ("flags", Array(Kind.BOOLEAN)),
        ("texts", Array(Kind.STRING)),
        ("inner", INNER),
        ("inners", ArrayOf(INNER)),
        ("choice", CHOICE),
        ("choices", ArrayOf(CHOICE)),
        ("any", Variant()),
        ("empty", Variant()),
        ("anys", ArrayOf(Variant())),
        ("large", Array(Kind.USHORT)),
    ),
)
VALUE: dict[str, Any] = {
    "flag": True,
    **{kind.name.lower(): value for kind, value in NUMBERS.items()},
    "text": "Grüße " * 60,
    **{
        f"{kind.name.lower()}s": np.array([value, 1], DTYPES[kind])
        for kind, value in NUMBERS.items()
    },
    "flags": np.array([True, False]),
    "texts": ["a", "", "b" * 300],
    "inner": {"name": "n", "any": AnyValue(Array(Kind.INT), np.arange(3))},
    "inners": [{"name": "x", "any": AnyValue(TEXT, "y")}, {"name": "z", "any": AnyValue()}],
    "choice": Selected("a", np.arange(4.0)),
    "choices": [Selected("i", 5), Selected("s", {"name": "q", "any": AnyValue()})],
    "any": AnyValue(INNER, {"name": "deep", "any": AnyValue(Scalar(Kind.LONG), 2**50)}),
    "empty": AnyValue(),
    "anys": [AnyValue(Scalar(Kind.INT), 1), AnyValue(TEXT, "t")],
    "large": np.arange(100_000) % 65_521,
}
N = Structure("", (("value", Scalar(Kind.INT)), ("more", TEXT)))


class Served:
    """The server with two channels, and what was put."""

    def __init__(self, prefix: str) -> None:
        self.all, self.number = f"{prefix}all", f"{prefix}n"
        self.puts: list[Any] = []
        self.server = Server(version="1.2.3")
        self.server.add(Channel(self.all, KIND, VALUE, self._take))
        self.channel = Channel(self.number, N, {"value": 3, "more": "m"}, self._take)
        self.server.add(self.channel)
        self.server.add(Channel(f"{prefix}fixed", N, {"value": 1, "more": ""}))
        self.server.start()

    def _take(self, put: Put) -> None:
        put.claim()
        self.puts.append((put.value, put.bits))
        put.finish()


@pytest.fixture
def served(prefix: str) -> Iterator[Served]:
    made = Served(prefix)
    yield made
    made.server.stop()


def outside(text: str, *args: str, **environment: str) -> str:
    """Run a client in a process of its own; what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text), *args],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


P4P = """
import sys
import numpy as np
from p4p.client.thread import Context
from p4p import Value
context = Context("pva", nt=False)
name, number = sys.argv[1:3]
"""


def test_values_reach_p4p(served: Served) -> None:
    shown = outside(
        P4P
        + """
v = context.get(name, timeout=20)
print(v.flag, v.byte, v.ulong, v.double, v.text == "Gr\\u00fc\\u00dfe " * 60)
print(v.bytes.tolist(), v.ulongs.tolist(), v.floats.tolist(), v.flags.tolist())
print(v.texts[1:] == ["", "b" * 300])
print(v.inner.any.tolist(), [i.name for i in v.inners], v.inners[0].any, v.inners[1].any)
print(v.choice.tolist(), v.choices[0], v.choices[1].name, v.any.name, v.any.any, v.empty, v.anys)
print((v.large == np.arange(100_000) % 65521).all())
context.close()
""",
        served.all,
        served.number,
    ).splitlines()
    assert shown == [
        f"True -5 {2**63 + 5} -1e+300 True",
        f"[-5, 1] [{2**63 + 5}, 1] [1.5, 1.0] [True, False]",
        "True",
        "[0, 1, 2] ['x', 'z'] y None",
        f"[0.0, 1.0, 2.0, 3.0] 5 q deep {2**50} None [1, 't']",
        "True",
    ]


def test_values_come_back_from_p4p(served: Served) -> None:
    outside(
        P4P
        + """
v = context.get(name, timeout=20)
context.put(name, v, timeout=20)
context.put(number, {"value": 8}, timeout=20)
context.close()
""",
        served.all,
        served.number,
    )
    (value, _), (put, bits) = served.puts
    assert bits == 0b10
    assert put == {"value": 8, "more": "m"}
    assert value["text"] == VALUE["text"]
    assert value["choices"][1].value["name"] == "q"
    assert value["any"].value["any"] == VALUE["any"].value["any"]
    assert value["inners"][0]["any"].value == "y"
    assert np.array_equal(value["large"], VALUE["large"])
    for kind, number in NUMBERS.items():
        assert value[kind.name.lower()] == number
        assert value[f"{kind.name.lower()}s"].tolist() == [number, 1]


def test_values_reach_the_binding_and_come_back(served: Served) -> None:
    outside(
        """
        import sys, pvaccess as pva
        pv = pva.Channel(sys.argv[1]); pv.setTimeout(20)
        obj = pv.get("field()")
        assert obj["ulong"] == 2**63 + 5 and obj["texts"][0] == "a", obj
        assert obj["any"][0]["value"]["name"] == "deep", obj
        pv.put(obj, "")
        """,
        served.all,
    )
    ((value, bits),) = served.puts
    assert bits
    assert np.array_equal(value["large"], VALUE["large"])
    assert value["byte"] == -5
    assert value["choices"][0] == Selected("i", 5)
    assert value["any"].value["any"].value == 2**50


MONITOR = """
import queue
got = queue.Queue()
def take(v):
    got.put((v.value, sorted(v.changedSet())))
s = context.monitor(number, take, request=sys.argv[3])
print(got.get(timeout=20)); sys.stdout.flush()
for k in range(5):
    context.put(number, {"value": 10 + k}, timeout=20)
    print(got.get(timeout=20))
s.close(); context.close()
"""


@pytest.mark.parametrize("request_", ["field(value)", "record[pipeline=true,queueSize=4]field()"])
def test_monitors_of_p4p(served: Served, request_: str) -> None:
    lines = outside(P4P + MONITOR, served.all, served.number, request_).splitlines()
    first = "['value']" if "(value)" in request_ else "['more', 'value']"
    assert lines == [f"(3, {first})", *(f"({10 + k}, ['value'])" for k in range(5))]


def test_updates_wait_in_a_closed_window(served: Served) -> None:
    text = """
    import queue
    got = queue.Queue()
    s = context.monitor(number, got.put, request="record[pipeline=true,queueSize=2]field()")
    print(got.get(timeout=20).value, flush=True)

    while got.get(timeout=20).value != 99:
        pass
    print("all", flush=True); s.close(); context.close()
    """
    client = subprocess.Popen(
        [sys.executable, "-c", P4P + textwrap.dedent(text), served.all, served.number],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert client.stdout is not None
    assert client.stdout.readline() == "3\n"
    for number in range(100):
        served.server.update(served.channel, {"value": number, "more": ""}, 0b10)
    out, _ = client.communicate(timeout=PATIENCE)
    assert out == "all\n"


def test_the_tools_of_epics(served: Served, prefix: str) -> None:
    assert pvget(served.number)["value"] == 3
    assert "not allowed" not in pvput(served.number, value="7")
    assert served.puts[-1][0]["value"] == 7
    assert "not allowed" in pvput(f"{prefix}fixed", value="7")
    run = [BIN / "pvinfo", "-w", "10", served.all]
    where = f"127.0.0.1:{served.server.port}"
    for _ in range(5):
        shown = subprocess.run(run, capture_output=True, text=True, timeout=PATIENCE).stdout
        # It asks for the address before or after it is connected, as it comes.
        if where in shown:
            break
    assert where in shown
    assert "inner_t[] inners" in shown
    listed = subprocess.run(
        [BIN / "pvlist", where], capture_output=True, text=True, timeout=PATIENCE
    ).stdout.split()
    assert listed == sorted([served.all, f"{prefix}fixed", served.number])
    info = subprocess.run(
        [BIN / "pvlist", "-i", where], capture_output=True, text=True, timeout=PATIENCE
    ).stdout
    assert "1.2.3" in info
    assert (
        served.server.identity.hex().upper()
        in subprocess.run([BIN / "pvlist"], capture_output=True, text=True, timeout=PATIENCE).stdout
    )
    refused = pva.Channel(f"{prefix}fixed")
    refused.setTimeout(10)
    assert refused.get("field(value)")["value"] == 1


def test_pvmonitor_follows_and_notices_the_end(served: Served) -> None:
    with subprocess.Popen(
        [BIN / "pvmonitor", "-r", "field(value)", served.number],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as client:
        assert client.stdout is not None
        assert client.stdout.readline().split() == [served.number, "3"]
        served.server.update(served.channel, {"value": 4, "more": ""}, 0b10)
        assert client.stdout.readline().split() == [served.number, "4"]
        served.server.remove(served.number)
        assert "isconnect" in client.stdout.readline()
        # The program that was started has started another.
        os.killpg(client.pid, signal.SIGKILL)


def test_servers_of_one_host_are_all_found(served: Served, prefix: str) -> None:
    """Searches are sent to one address: whoever gets them passes them on."""
    other = pva.PvaServer(f"{prefix}binding", pva.PvObject({"value": pva.INT}, {"value": 11}))
    other.start()
    second = Server()
    second.add(Channel(f"{prefix}second", N, {"value": 12, "more": ""}))
    second.start()
    text = f"""
import sys, time
from p4p.nt import NTScalar
from p4p.server import Server
from p4p.server.thread import SharedPV
server = Server(providers=[{{"{prefix}p4p": SharedPV(nt=NTScalar("i"), initial=13)}}])
print("up", flush=True); sys.stdin.readline(); server.stop()
"""
    pvxs = subprocess.Popen(
        [sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert pvxs.stdout is not None
        assert pvxs.stdout.readline() == "up\n"
        names = [f"{prefix}{one}" for one in ("n", "binding", "second", "p4p")]
        found = outside(
            P4P + "print([context.get(n, timeout=20).value for n in sys.argv[1:]])", *names
        )
        assert found == "[3, 11, 12, 13]\n"
        assert [pvget(name)["value"] for name in names] == [3, 11, 12, 13]
    finally:
        pvxs.communicate("\n", timeout=PATIENCE)
        second.stop()
        other.stop()


@pytest.mark.parametrize("client", ["p4p", "binding"])
def test_name_servers(served: Served, client: str) -> None:
    """A client that cannot search by UDP asks the server itself."""
    text = {
        "p4p": P4P + "print(context.get(number, timeout=20).value)",
        "binding": "import sys, pvaccess as pva; pv = pva.Channel(sys.argv[2]); pv.setTimeout(20);"
        "print(pv.get('field(value)')['value'])",
    }[client]
    shown = outside(
        text, served.all, served.number,
        EPICS_PVA_BROADCAST_PORT=str(free_port()),
        EPICS_PVA_NAME_SERVERS=f"127.0.0.1:{served.server.port}",
    )  # fmt: skip
    assert shown == "3\n"
