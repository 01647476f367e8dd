"""Which HTTP requests our servers answer: a host that is ours, and no page of another site.

A page of another site can make a browser send requests to a server of this machine. It cannot
choose the headers Host, Origin and Sec-Fetch-Site. With DNS rebinding it can make its own name
resolve to this machine; then Origin agrees with Host, but Host is not one of our names.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, MutableMapping
from typing import Any
from urllib.parse import urlsplit

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

_HOST = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::\d*)?")

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Message, _Receive, _Send], Awaitable[None]]


def host_names(address: str, more: Iterable[str] = ()) -> frozenset[str]:
    """Names by which a server may be called; addresses need none, as they cannot be rebound.

    Args:
        address: where it is bound.
        more: what else it is called, behind a proxy for example.
    """
    own = [socket.gethostname()]
    if not is_loopback(address):
        # May wait for a name server, so only where others come from outside.
        own.append(socket.getfqdn())
    return frozenset(name.lower().rstrip(".") for name in ("localhost", address, *own, *more))


def is_loopback(address: str) -> bool:
    """Whether only programs of this machine reach a server at this address."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def host_is_ours(host: str, names: Collection[str]) -> bool:
    """Whether a Host header names an address or one of the names."""
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    try:
        ipaddress.ip_address(found["v6"] or found["name"])
    except ValueError:
        return (found["name"] or "").lower().rstrip(".") in names
    return True


def from_a_browser(headers: Mapping[str, str]) -> bool:
    """Whether a browser made the request; headers by names in lower case."""
    return any(name == "origin" or name.startswith("sec-fetch-") for name in headers)


def from_another_site(headers: Mapping[str, str]) -> bool:
    """Whether a page of another origin made the request; headers by names in lower case."""
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return True
    origin = headers.get("origin")
    if origin is None:
        return False
    try:
        return urlsplit(origin).netloc.lower() != headers.get("host", "").lower()
    except ValueError:
        return True


def refusal(method: str, headers: Mapping[str, str], names: Collection[str]) -> str:
    """Why a request is refused; "" when it may pass.

    Args:
        method: GET, POST, …
        headers: by names in lower case.
        names: of the server, see `host_names`.
    """
    host = headers.get("host", "")
    if not host_is_ours(host, names):
        return (
            f"this server does not accept the host name {host!r}; use its address, or allow the"
            " name with --allow-host"
        )
    if method not in SAFE_METHODS and from_another_site(headers):
        return "requests from pages of another origin are refused"
    return ""


def bearer_is_right(headers: Mapping[str, str], token: str) -> bool:
    """Whether a request has the token; headers by names in lower case."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    # As bytes: the comparison refuses texts with other letters than ASCII.
    same = hmac.compare_digest(given.strip().encode("utf-8", "replace"), token.encode())
    return same and scheme.lower() == "bearer" and bool(token)


class Guard:
    """ASGI middleware that refuses what `refusal` says, and adds headers to all answers.

    Args:
        app: what is guarded.
        names: of the server, see `host_names`.
        headers: added to each answer.
    """

    def __init__(
        self, app: _App, names: Collection[str], headers: Mapping[str, str] | None = None
    ) -> None:
        self._app = app
        self._names = names
        self._headers = [
            (name.lower().encode(), value.encode()) for name, value in (headers or {}).items()
        ]

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        why = refusal(scope["method"], headers, self._names)

        async def send_with_headers(message: _Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *self._headers]}
            await send(message)

        if not why:
            await self._app(scope, receive, send_with_headers)
            return
        plain = [(b"content-type", b"text/plain; charset=utf-8")]
        await send_with_headers({"type": "http.response.start", "status": 403, "headers": plain})
        await send({"type": "http.response.body", "body": f"{why}\n".encode()})
