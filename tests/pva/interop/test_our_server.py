"""Our server and clients of other make: the same values for every type, both ways.

The Python package of spvirit is among them, for the types that its version 0.4 can read.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pvapy_stream.pva.net.server_channel import Channel
from tests.pva.interop.catalogue import CASES, channel_name, exact, plain, shown_by
from tests.pva.interop.conftest import Partners, Remote, Served
from tests.pva.interop.partners import WHOLE
from tests.pvmonitor import Pvmonitor
from tests.support import PATIENCE, TOOLS, pvput

MAKES = ("p4p", "pvapy", "spvirit", "pvmonitor")
# What clients ask for, and what they get of a structure.
SELECTIONS: dict[str, Callable[[Any], Any]] = {
    "field(after)": lambda held: {"after": held["after"]},
    "field(after,value.point.name)": lambda held: {
        "value": {"point": {"name": held["value"]["point"]["name"]}}, "after": held["after"],
    },
    "record[queueSize=3]field(value.point)": lambda held: {
        "value": {"point": held["value"]["point"]}
    },
    "record[queueSize=10,pipeline=true]field(value)": lambda held: {"value": held["value"]},
}  # fmt: skip
PAIRS = [(make, case) for make in MAKES for case in shown_by(make)]
# pvmonitor puts nothing, and p4p no union without a value. spvirit 0.4 does not understand a server
# that describes a type once for each connection, as pvAccessCPP's and ours.
BACK = [
    (make, case)
    for make, case in PAIRS
    if make in ("p4p", "pvapy") and (make, case[-4:], case[:5]) != ("p4p", "none", "union")
]


@pytest.fixture(scope="module")
def partners(served: Served) -> Iterator[Partners]:
    def start(make: str) -> Any:
        names = {case: served.channels[case].name for case in shown_by(make)}
        for case in CASES:
            served.show(case, 0)
        if make == "pvmonitor":
            return Pvmonitor(WHOLE, *names.values())
        made = Remote(make, "client", served.prefix)
        # All at once: each is searched for.
        for name in names.values():
            made("follow", name, WHOLE)
        return made

    made = Partners(start)
    yield made
    made.close()


def shown(make: str, case: str, number: int) -> Any:
    """What a partner shows of a value."""
    found = plain(CASES[case].structure(number))
    if make == "pvmonitor" and "ulong" in case:
        # Its JSON has signed numbers.
        return _signed(found)
    return found


def _signed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _signed(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_signed(one) for one in value]
    return value - 2**64 if isinstance(value, int) and value >= 2**63 else value


@pytest.mark.parametrize(("make", "case"), PAIRS)
def test_values_reach_them(partners: Partners, served: Served, make: str, case: str) -> None:
    partner = partners(make)
    name = channel_name(served.prefix, case)
    for number in range(len(CASES[case].values)):
        if number:
            served.show(case, number)
        assert plain(partner("take", name)) == shown(make, case, number)


@pytest.mark.parametrize(("make", "case"), BACK)
def test_values_come_back(partners: Partners, served: Served, make: str, case: str) -> None:
    partner = partners(make)
    for number in range(len(CASES[case].values)):
        served.show(case, number)
        served.puts.clear()
        assert partner("copy", channel_name(served.prefix, case)) == ""
        assert len(served.puts) == 1
        assert exact(served.puts[0]) == exact(CASES[case].structure(number))


@pytest.mark.parametrize(
    ("make", "asked"),
    [
        (make, asked)
        for make in MAKES
        for asked in SELECTIONS
        if "record" not in asked or make != "spvirit"
    ],
)
def test_a_part_is_selected(partners: Partners, served: Served, make: str, asked: str) -> None:
    """spvirit has no options for the whole request."""
    what = CASES["structure"]
    name, select = served.fixed.name, SELECTIONS[asked]
    served.server.update(served.fixed, what.structure(0))
    partner = Pvmonitor(asked, name) if make == "pvmonitor" else partners(make)
    try:
        if make == "pvmonitor":
            key = name
        else:
            assert partner("get", name, asked) == plain(select(what.structure(0)))
            partner("follow", name, asked)
            key = f"{name} {asked}"
        assert plain(partner("take", key)) == plain(select(what.structure(0)))
        for number in (1, 0, 1):
            served.server.update(served.fixed, what.structure(number))
            assert plain(partner("take", key)) == plain(select(what.structure(number)))
    finally:
        if make == "pvmonitor":
            partner.close()


@pytest.mark.parametrize("make", ["p4p", "pvput"])
def test_a_field_is_put_alone(partners: Partners, served: Served, make: str) -> None:
    name = served.channels["short"].name
    if make == "pvput":
        served.show("short", 1)
        assert "not allowed" not in pvput(name, value="7")
    else:
        # First: when it starts, all first values are shown.
        partner = partners(make)
        served.show("short", 1)
        assert partner("put", name, {"value": 7}) == ""
    assert served.puts[-1] == {"value": 7, "after": 1001}


@pytest.mark.parametrize("make", ["p4p", "pvapy", "pvput"])
def test_puts_to_outputs_are_refused(partners: Partners, served: Served, make: str) -> None:
    name = served.fixed.name
    refusal = pvput(name, after="7") if make == "pvput" else partners(make)("copy", name)
    assert "not allowed" in refusal
    assert served.fixed.value["after"] != 7


def run(*words: object) -> str:
    return subprocess.run(
        [TOOLS / str(words[0]), *map(str, words[1:])],
        capture_output=True, text=True, timeout=PATIENCE,
    ).stdout  # fmt: skip


def test_pvinfo_and_pvlist(served: Served) -> None:
    where = f"127.0.0.1:{served.server.port}"
    for _ in range(5):
        shown = run("pvinfo", "-w", "10", served.channels["structure[]"].name)
        assert "point_t[] value" in shown
        # It asks for the address before or after it is connected, as it comes.
        if where in shown:
            break
    assert where in shown
    names = [one.name for one in (*served.channels.values(), served.fixed)]
    assert run("pvlist", where).split() == sorted(names)
    assert "1.2.3" in run("pvlist", "-i", where)
    assert served.server.identity.hex().upper() in run("pvlist")


def test_pvlist_of_spvirit(served: Served) -> None:
    lowlevel = pytest.importorskip("spvirit.lowlevel")
    names, source = lowlevel.pvlist(f"127.0.0.1:{served.server.port}")
    assert served.fixed.name in names
    assert source == "server_rpc"


def test_pvmonitor_notices_the_end_of_a_channel(served: Served) -> None:
    name = served.prefix + "short-lived"
    served.server.add(Channel(name, served.fixed.kind, CASES["structure"].structure(0)))
    program = Pvmonitor("field(after)", name)
    try:
        assert program("take", name) == {"after": 1000}
        served.server.remove(name)
        assert "isconnect" in program.line()
    finally:
        program.close()
