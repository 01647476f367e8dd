"""The channel map is read as the incumbent reads it, and its mistakes are named."""

from __future__ import annotations

import pytest

from pvapy_stream.errors import SettingsError
from pvapy_stream.settings.channel_map import MirrorEntry, parse_channel_map

SHARED = "_[pydistributor=updates:1;group:mirror;set:s1;trigger:uniqueId]"


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("(m,s)", [MirrorEntry("m", "s")]),
        (" ( m , s ) , ( n , t , CA ) ", [MirrorEntry("m", "s"), MirrorEntry("n", "t", "ca")]),
        ("(m,s,pva,10),(n,s)", [MirrorEntry("m", "s", "pva", 10), MirrorEntry("n", "s")]),
        (f"(m,s,pva,0,2,{SHARED})", [MirrorEntry("m", "s", "pva", 0, 2, SHARED)]),
        (
            f"(m,s,pva,5,2,field(uniqueId,value[{SHARED[2:-1]}])),(n,s)",
            [
                MirrorEntry("m", "s", "pva", 5, 2, f"field(uniqueId,value[{SHARED[2:-1]}])"),
                MirrorEntry("n", "s"),
            ],
        ),
        ("(m,s,pva,0,1,uniqueId,value)", [MirrorEntry("m", "s", "pva", 0, 1, "uniqueId,value")]),
    ],
)
def test_reads(text: str, entries: list[MirrorEntry]) -> None:
    assert list(parse_channel_map(text)) == entries


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("(m)", r"\(m\) needs a mirror and a source"),
        ("(m,)", "needs a mirror and a source"),
        ("()", "needs a mirror and a source"),
        ("(a,b),(m,s,tcp)", r"\(m,s,tcp\) has the unknown provider 'tcp'"),
        ("(m,s,pva,-1)", r"queue '-1'"),
        ("(m,s,pva,x)", r"queue 'x'"),
        ("(m,s,pva,0,0)", r"'0' monitors"),
        ("(m,s,pva,0,1.5)", r"'1\.5' monitors"),
        ("(m,a),(m,b)", "two entries have the channel 'm'"),
        ("(m,m)", "under its own name"),
        ("m", "needs a mirror and a source"),
        ("(m,s,pva,0,1,_[x", "not closed"),
        ("(m,s,pva,0,1,_[x)", "do not match"),
        ("  ", "has no entry"),
        ("(m,s,pva,3,1,record[queueSize=4]field())", "one of them"),
    ],
)
def test_names_what_is_wrong(text: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        parse_channel_map(text)


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ("(m,s)", "field()"),
        ("(m,s,pva,7)", "record[queueSize=7]field()"),
        ("(m,s,ca)", "field(value,alarm,timeStamp)"),
        ("(m,s,pva,0,1,a,b)", "field(a,b)"),
        ("(m,s,pva,7,1,field(a,b))", "record[queueSize=7]field(a,b)"),
        ("(m,s,pva,0,1,record[queueSize=3]field(a))", "record[queueSize=3]field(a)"),
    ],
)
def test_request(text: str, request_: str) -> None:
    assert parse_channel_map(text)[0].pv_request == request_


def test_distribution_is_read_from_the_request() -> None:
    (entry,) = parse_channel_map(f"(m,s,pva,0,2,{SHARED})")
    assert entry.distribution == {
        "updates": "1",
        "group": "mirror",
        "set": "s1",
        "trigger": "uniqueId",
    }
    assert MirrorEntry("m", "s", request="record[queueSize=3]field(a)").distribution is None
