"""Our client and servers of other make: the same values for every type, both ways.

What our client puts goes through the codec of the partner twice: the partner shows what it has got,
and sends it to our monitor. spvirit and softIocPVA take part with the types that they have.
"""

from __future__ import annotations

import queue
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from pvapy_stream.pva.encoder import same_form
from pvapy_stream.pva.net.client import Client
from pvapy_stream.pva.wire.buffers import Buffer, Reader
from pvapy_stream.pva.wire.changes import read_changes
from pvapy_stream.pva.wire.descriptions import Incoming
from pvapy_stream.pva.wire.types import Structure, default
from tests.pva.interop.catalogue import (
    CASES,
    LARGE,
    LENGTHS,
    TEXTS,
    channel_name,
    exact,
    plain,
    shown_by,
)
from tests.pva.interop.conftest import Partners, Remote
from tests.pva.interop.partners import WHOLE
from tests.support import PATIENCE, TOOLS

LIMITS = (PATIENCE, PATIENCE)
# A server of PVXS shows a union without a value, and takes none; that of pvapy may crash when
# a put makes a value of any type none, and has no types with a greatest length.
PAIRS = [
    *(("p4p", case) for case in shown_by("p4p") if case not in ("union none", "union to none")),
    *(("pvapy", case) for case in CASES if case not in ("any to none", *LENGTHS)),
]


class Follower:
    """Keeps what a monitor of our client gets."""

    def __init__(self) -> None:
        self.came: queue.Queue[Any] = queue.Queue()
        self.losses = 0

    def began(self, kind: Structure, known: Incoming, identity: bytes) -> None:
        self.kind, self._known = kind, known
        self._held: Any = default(kind)

    def update(self, payload: Sequence[Buffer], big: bool) -> None:
        reader = Reader(payload, big)
        reader.take(5)
        self._held = read_changes(self.kind, reader, self._known, self._held)[1]
        self.came.put(self._held)

    def refused(self, reason: str) -> None:
        self.came.put(reason)

    def lost(self, reason: str) -> None:
        self.losses += 1

    def next(self) -> Any:
        return self.came.get(timeout=PATIENCE)


class Followed:
    """Channels of a partner with monitors, begun all at once: each is searched for."""

    def __init__(self, client: Client, prefix: str, make: str, cases: list[str]) -> None:
        self.remote = Remote(make, "server", prefix)
        self.close = self.remote.close
        self.channels = {case: client.channel(channel_name(prefix, case)) for case in cases}
        self.seen = {case: Follower() for case in cases}
        for case in cases:
            self.channels[case].monitor(WHOLE, self.seen[case])


@pytest.fixture(scope="module")
def followed(follower: Client, interop_prefix: str) -> Iterator[Partners]:
    made = Partners(
        lambda make: Followed(
            follower, f"{interop_prefix}{make}:", make, [c for m, c in (*PAIRS, *MADE) if m == make]
        )
    )
    yield made
    made.close()


@pytest.mark.parametrize(("make", "case"), PAIRS)
def test_values_go_there_and_back(followed: Partners, make: str, case: str) -> None:
    there = followed(make)
    channel, seen, what = there.channels[case], there.seen[case], CASES[case]
    assert exact(seen.next()) == exact(default(what.kind))
    assert same_form(channel.introspect(*LIMITS), what.kind)
    kind = channel.put_kind(PATIENCE)
    for number in range(len(what.values)):
        given = what.structure(number)
        channel.put(kind, given, *LIMITS)
        taken = there.remote("take", channel.name)
        assert case not in shown_by(make) or plain(taken) == plain(given)
        assert exact(seen.next()) == exact(given)
        assert exact(channel.get("", *LIMITS).value) == exact(given)


MADE = [("spvirit", case) for case in shown_by("spvirit")]


@pytest.mark.parametrize(("make", "case"), MADE)
def test_values_of_spvirit(followed: Partners, make: str, case: str) -> None:
    there = followed(make)
    seen = there.seen[case]
    assert plain(seen.next()["value"]) == plain(CASES[case].values[-1])
    for number in range(len(CASES[case].values)):
        there.remote("post", case, number)
        assert plain(seen.next()["value"]) == plain(CASES[case].values[number])
    got: Any = there.channels[case].get("field(value)", *LIMITS).value
    assert plain(got["value"]) == plain(CASES[case].values[-1])


# Records of an IOC by the types of their values; strings have 39 bytes at most.
RECORDS = {"int": "longout", "long": "int64out", "double": "ao", "string": "stringout"}
ELEMENTS = {
    "byte": "CHAR", "ubyte": "UCHAR", "short": "SHORT", "ushort": "USHORT", "int": "LONG",
    "uint": "ULONG", "long": "INT64", "ulong": "UINT64", "float": "FLOAT", "double": "DOUBLE",
}  # fmt: skip
IOC = [*RECORDS, *(f"{name}[]" for name in ELEMENTS), "string[]"]


@pytest.fixture(scope="module")
def ioc(interop_prefix: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    prefix = f"{interop_prefix}ioc:"
    lines = [f'record({kind}, "{prefix}{name}") {{}}' for name, kind in RECORDS.items()]
    lines += [
        f'record(waveform, "{prefix}{name}[]") {{ field(FTVL, "{kind}") field(NELM, "{LARGE}") }}'
        for name, kind in {**ELEMENTS, "string": "STRING"}.items()
    ]
    database = tmp_path_factory.mktemp("ioc") / "ioc.db"
    database.write_text("\n".join(lines))
    program = subprocess.Popen(
        [TOOLS / "softIocPVA", "-S", "-d", database],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    yield prefix
    program.kill()
    program.wait(PATIENCE)


@pytest.mark.parametrize("case", IOC)
def test_values_go_to_an_ioc_and_back(follower: Client, ioc: str, case: str) -> None:
    channel, seen = follower.channel(ioc + case), Follower()
    channel.monitor("field(value)", seen)
    assert "value" in seen.next()
    kind = channel.put_kind(PATIENCE)
    held: Any = channel.get("", *LIMITS).value
    values = CASES[case].values[1:]
    if case.startswith("string"):
        values = [TEXTS[1:4]] if "[" in case else TEXTS[1:4]
    for value in values:
        channel.put(kind, {**held, "value": value}, *LIMITS)
        assert exact(seen.next()["value"]) == exact(value)
        got: Any = channel.get("field(value)", *LIMITS).value
        assert exact(got["value"]) == exact(value)
    channel.close()
