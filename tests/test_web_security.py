from __future__ import annotations

import socket

import pytest

from pvapy_stream.web_security import (
    bearer_is_right,
    from_a_browser,
    from_another_site,
    host_is_ours,
    host_names,
    refusal,
)

NAMES = host_names("127.0.0.1", ["Proxy.example.org"])


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("127.0.0.1:8080", True),
        ("10.1.2.3", True),
        ("[::1]:8080", True),
        ("localhost:1", True),
        ("LOCALHOST.", True),
        (f"{socket.gethostname()}:80", True),
        ("proxy.example.org", True),
        ("evil.example", False),
        ("127.0.0.1.evil.example:8080", False),
        ("localhost.evil.example", False),
        ("user@localhost", False),
        ("localhost@evil.example", False),
        ("localhost/evil", False),
        ("[::1]evil.example", False),
        ("", False),
        ("[", False),
    ],
)
def test_hosts(host: str, ours: bool) -> None:
    assert host_is_ours(host, NAMES) is ours
    assert (refusal("GET", {"host": host}, NAMES) == "") is ours


@pytest.mark.parametrize(
    ("headers", "foreign"),
    [
        ({}, False),
        ({"origin": "http://localhost:8080"}, False),
        ({"origin": "https://localhost:8080"}, False),
        ({"sec-fetch-site": "same-origin"}, False),
        ({"sec-fetch-site": "none"}, False),
        ({"origin": "http://localhost:8081"}, True),
        ({"origin": "http://evil.example"}, True),
        ({"origin": "null"}, True),
        ({"origin": "http://["}, True),
        ({"sec-fetch-site": "cross-site"}, True),
        ({"sec-fetch-site": "same-site"}, True),
    ],
)
def test_origins(headers: dict[str, str], foreign: bool) -> None:
    asked = {"host": "localhost:8080", **headers}
    assert from_another_site(asked) is foreign
    assert bool(refusal("POST", asked, NAMES)) is foreign
    assert refusal("GET", asked, NAMES) == ""
    assert from_a_browser(asked) is bool(headers)


def test_tokens() -> None:
    assert bearer_is_right({"authorization": "Bearer secret"}, "secret")
    assert bearer_is_right({"authorization": "bearer secret "}, "secret")
    for given in ("", "secret", "Basic secret", "Bearer ", "Bearer Secret", "Bearer sécret"):
        assert not bearer_is_right({"authorization": given}, "secret")
    assert not bearer_is_right({"authorization": "Bearer "}, "")
