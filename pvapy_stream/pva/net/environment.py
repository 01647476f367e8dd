"""What the environment variables of EPICS say about PVAccess servers, and how they are found."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterable, Mapping
from functools import cache

from msgspec import Struct

from pvapy_stream.pva.wire.searching import ANY

ADDRESSES, NAME_SERVERS = "EPICS_PVA_ADDR_LIST", "EPICS_PVA_NAME_SERVERS"
SERVER_PORT = 5075
BROADCAST_PORT = 5076
_BEACON_PERIOD = 15.0  # s

Address = tuple[str, int]

_log = logging.getLogger(__name__)

# Nothing is sent to another host, and nobody there is answered.
LOOPBACK = {
    "EPICS_PVA_ADDR_LIST": "127.0.0.1",
    "EPICS_PVA_AUTO_ADDR_LIST": "NO",
    "EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1",
    "EPICS_PVAS_BEACON_ADDR_LIST": "127.0.0.1",
    "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
    "EPICS_CA_ADDR_LIST": "127.0.0.1",
    "EPICS_CA_AUTO_ADDR_LIST": "NO",
    "EPICS_CAS_INTF_ADDR_LIST": "127.0.0.1",
    "EPICS_CAS_BEACON_ADDR_LIST": "127.0.0.1",
    "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO",
}


class ServerSettings(Struct, frozen=True):
    """Where a server listens, and where it sends its beacons.

    Attributes:
        interfaces: IPv4 addresses it listens on; all of the host if empty.
        port: TCP; any free one is taken if it is in use.
        broadcast_port: UDP; of searches.
        ignored: addresses whose searches are not answered.
        beacons: where beacons go.
        beacons_here: whether the programs of this host receive them too.
        beacon_period: s.
    """

    interfaces: tuple[str, ...] = ()
    port: int = SERVER_PORT
    broadcast_port: int = BROADCAST_PORT
    ignored: frozenset[str] = frozenset()
    beacons: tuple[Address, ...] = ()
    beacons_here: bool = False
    beacon_period: float = _BEACON_PERIOD

    @classmethod
    def of(cls, given: Mapping[str, str] | None = None) -> ServerSettings:
        """What the environment says; values that cannot be understood are as if not there."""
        given = os.environ if given is None else given

        def value(name: str) -> str:
            return (
                given.get(f"EPICS_PVAS_{name}", "").strip()
                or given.get(f"EPICS_PVA_{name}", "").strip()
            )

        broadcast_port = _number(value("BROADCAST_PORT"), BROADCAST_PORT)
        listed = given.get("EPICS_PVAS_BEACON_ADDR_LIST", given.get("EPICS_PVA_ADDR_LIST", ""))
        auto = given.get(
            "EPICS_PVAS_AUTO_BEACON_ADDR_LIST", given.get("EPICS_PVA_AUTO_ADDR_LIST", "YES")
        )
        interfaces = tuple(
            host for host, _ in _addresses(given.get("EPICS_PVAS_INTF_ADDR_LIST", ""), 0)
        )
        interfaces = () if ANY in interfaces else interfaces
        beacons, own = _addresses(listed, broadcast_port), interfaces_of_host()
        # One is sent to the port that the host's programs listen at.
        here = any((address, broadcast_port) in beacons for address, _ in own)
        if auto.strip().upper() != "NO":
            here = True
            beacons += [
                (broadcast, broadcast_port)
                for address, broadcast in own
                if broadcast and (not interfaces or address in interfaces)
            ]
        return cls(
            interfaces,
            _number(value("SERVER_PORT"), SERVER_PORT),
            broadcast_port,
            frozenset(
                host for host, _ in _addresses(given.get("EPICS_PVAS_IGNORE_ADDR_LIST", ""), 0)
            ),
            tuple(dict.fromkeys(beacons)),
            here,
            max(0.1, _real(value("BEACON_PERIOD"), _BEACON_PERIOD)),
        )


class UnknownHost(Struct, frozen=True):
    """A host without an address.

    Attributes:
        name: of the host.
        port: that it is to be asked at.
        variable: of the environment, which contains it.
    """

    name: str
    port: int
    variable: str


class ClientSettings(Struct, frozen=True):
    """Where a client searches for channels.

    Attributes:
        searched: where searches are sent by UDP, and whether one host alone gets them there.
        name_servers: that are asked over TCP.
        unknown: hosts that are to be asked as soon as they are known.
        own: addresses of this host.
        broadcasts: broadcast addresses for searches; beacons are received there too.
        broadcast_port: UDP; of beacons.
    """

    searched: tuple[tuple[Address, bool], ...] = ()
    name_servers: tuple[Address, ...] = ()
    unknown: tuple[UnknownHost, ...] = ()
    own: frozenset[str] = frozenset()
    broadcasts: tuple[str, ...] = ()
    broadcast_port: int = BROADCAST_PORT

    @classmethod
    def of(cls) -> ClientSettings:
        """The settings of the environment; hosts that are unknown are listed in it."""
        unknown: list[UnknownHost] = []
        found = _resolved(searched_addresses(), ADDRESSES, unknown)
        listed = listed_addresses(os.environ.get(NAME_SERVERS, ""), SERVER_PORT)
        servers = _resolved(listed, NAME_SERVERS, unknown)
        for host in unknown:
            _log.warning(
                "host %s of %s is unknown, and not asked for channels until it is known; check its"
                " name",
                host.name, host.variable,
            )  # fmt: skip
        searched, interfaces = asked_by_udp(found), interfaces_of_host()
        asked = {host for (host, _), _ in searched}
        return cls(
            searched,
            tuple(dict.fromkeys(servers)),
            tuple(unknown),
            frozenset(address for address, _ in interfaces),
            tuple(broadcast for _, broadcast in interfaces if broadcast in asked),
            _client_port(),
        )


def asked_by_udp(addresses: Iterable[Address]) -> tuple[tuple[Address, bool], ...]:
    """Addresses to search at, and whether one host alone gets what is sent there."""
    shared = {broadcast for _, broadcast in interfaces_of_host()}
    return tuple((one, one[0] not in shared and not _is_group(one[0])) for one in addresses)


def own_addresses() -> frozenset[str]:
    """IPv4 addresses of the host."""
    return frozenset(address for address, _ in interfaces_of_host())


def interfaces_of_host() -> list[tuple[str, str]]:
    """IPv4 addresses of the host, and the broadcast address of each, or ""."""
    import psutil  # here, as few programs need it, and all start sooner without it

    return [
        # One without a broadcast address is listed with its own.
        (one.address, one.broadcast if one.broadcast and one.broadcast != one.address else "")
        for interface in psutil.net_if_addrs().values()
        for one in interface
        if one.family == socket.AF_INET
    ]


def listed_addresses(text: str, port: int) -> list[Address]:
    """Hosts, as they are named, and ports of a list such as ``EPICS_PVA_NAME_SERVERS``.

    Args:
        text: the list.
        port: of those without one.
    """
    found: list[Address] = []
    for entry in text.split():
        host, colon, own = entry.partition(":")
        if colon and _number(own, -1) < 0:
            _report_port(entry, own, port)
        found.append((host, _number(own, port)))
    return found


@cache
def _report_port(entry: str, own: str, port: int) -> None:
    """Log once that an entry of a list has no valid port."""
    _log.warning(
        "EPICS address %s: %r is no port, and %d is used; give HOST or HOST:PORT, and separate"
        " addresses with spaces",
        entry, own, port,
    )  # fmt: skip


def known_addresses() -> tuple[tuple[Address, bool], ...]:
    """As `asked_by_udp`, of those of a client of this process whose hosts are known."""
    return asked_by_udp(_resolved(searched_addresses()))


def searched_addresses() -> list[Address]:
    """Where a client of this process sends its searches."""
    port = _client_port()
    found = listed_addresses(os.environ.get("EPICS_PVA_ADDR_LIST", ""), port)
    if os.environ.get("EPICS_PVA_AUTO_ADDR_LIST", "YES").strip().upper() != "NO":
        found.append(("127.0.0.1", port))
        found += [(broadcast, port) for _, broadcast in interfaces_of_host() if broadcast]
    return list(dict.fromkeys(found))


def _client_port() -> int:
    return _number(os.environ.get("EPICS_PVA_BROADCAST_PORT", ""), BROADCAST_PORT)


def _addresses(text: str, port: int) -> list[Address]:
    return _resolved(listed_addresses(text, port))


def _is_group(address: str) -> bool:
    return 224 <= int(address.partition(".")[0]) < 240 or address == "255.255.255.255"


def _resolved(
    listed: list[Address], variable: str = "", unknown: list[UnknownHost] | None = None
) -> list[Address]:
    """Those whose hosts are known; others of this variable are added to `unknown`."""
    found: list[Address] = []
    for host, own in listed:
        try:
            found.append((_address_of(host), own))
        except OSError:
            # A host that is unknown now keeps nobody from the others.
            if unknown is not None:
                unknown.append(UnknownHost(host, own, variable))
    return found


def _address_of(host: str) -> str:
    """The IPv4 address of a host.

    Raises:
        OSError: it is unknown.
    """
    try:
        # To look up what is an address already, Python would import a codec for names.
        socket.inet_pton(socket.AF_INET, host)
    except OSError:
        return socket.gethostbyname(host)
    return host


def _number(text: str, otherwise: int) -> int:
    return int(text) if text.isdigit() and int(text) < 2**16 else otherwise


def _real(text: str, otherwise: float) -> float:
    try:
        return float(text)
    except ValueError:
        return otherwise
