"""Hosts channels on our PVA servers, each with the access rights of clients.

EPICS access security has one configuration for a process, and every channel belongs to one of its
groups. `addRecord` of the binding uses the group DEFAULT, to which any client may put. Here
channels are put into groups of our own. Access security does not apply to our own updates.

A channel that a client has opened before access security is active stays closed to that client.
Therefore the functions here activate it before they add a channel, and a server to which others may
add channels is made by `make_server`. An IOC for CA records must run in another process: its server
cannot be used in a process where access security is active already.
"""

from __future__ import annotations

import hashlib
import logging
import re
import socket
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pvaccess as pva
from msgspec import Struct

from pvapy_stream.errors import SettingsError, TransportError
from pvapy_stream.pva.acf import WriteRules, write_rules

_PREFIX = "PVAPY_STREAM_"
_READ_ONLY = f"{_PREFIX}READ_ONLY"
_DEFAULT = "DEFAULT"
_CONTROL = "CONTROL"
_NO_GROUP = (
    "has neither ASG(CONTROL) nor ASG(DEFAULT); one of them must define which clients may put to"
    " control channels"
)
_LEVEL = 0  # rules of any level apply

_COMMENT = re.compile(r'("[^"\n]*")|#[^\n]*')
_GROUP = re.compile(r'\bASG\s*\(\s*"?(\w+)"?\s*\)')
_HOSTS = re.compile(r"(\bHAG\s*\(\s*[^)]+\)\s*\{)([^}]*)\}")

_log = logging.getLogger(__name__)


class PutRights(Struct, frozen=True):
    """Which clients may put to a control channel: all of them, unless limited.

    Clients state their user name themselves: this prevents mistakes, not forgery.

    Attributes:
        clients: ``HOST``, ``USER@HOST`` or ``USER@*``; empty for any client.
        file: EPICS access security file; its group CONTROL, or else DEFAULT, is used.
    """

    clients: tuple[str, ...] = ()
    file: str = ""


ANYBODY = PutRights()


def new_server() -> pva.PvaServer:
    """A PVA server.

    Raises:
        TransportError: the machine has only the loopback interface, and EPICS is not set up for it.
    """
    try:
        return pva.PvaServer()
    except RuntimeError as error:
        if "network interface" not in str(error):
            raise
        # The binding's own message has pages of C++ details.
        raise TransportError(
            "this machine has only the loopback network interface, which PVAccess does not use by"
            ' default; give: eval "$(pvapy-stream env)"'
        ) from None


def make_server(rights: PutRights = ANYBODY) -> pva.PvaServer:
    """A PVA server, with access security active.

    Args:
        rights: of the control channel that it will host; they are checked here.

    Raises:
        SettingsError: a host is unknown, or the file cannot be used.
    """
    server = new_server()
    _security.group_for(server, rights)
    return server


def host_readonly(server: pva.PvaServer, name: str, obj: pva.PvObject) -> None:
    """Host a channel to which no client may put.

    Args:
        server: takes it.
        name: of the channel.
        obj: its first value; the server keeps it.

    Raises:
        pvaccess.PvaException: the name is taken on this server.
    """
    _security.group_for(server, ANYBODY)
    server.addRecordWithAs(name, obj, _LEVEL, _READ_ONLY, None)


def host_writable(
    server: pva.PvaServer,
    name: str,
    obj: pva.PvObject,
    on_put: Callable[[pva.PvObject], None],
    rights: PutRights = ANYBODY,
) -> None:
    """Host a channel to which clients may put.

    Args:
        server: takes it.
        name: of the channel.
        obj: its first value; the server keeps it.
        on_put: called with the object after each put, in a thread of the server.
        rights: which clients may put.

    Raises:
        SettingsError: a host is unknown, or the file cannot be used.
    """
    group = _security.group_for(server, rights)
    server.addRecordWithAs(name, obj, _LEVEL, group, on_put)


def may_put(user: str, host: str) -> bool:
    """Whether a client may put to an input: any, unless the group DEFAULT of a file says otherwise.

    Args:
        user: name that the client states.
        host: its address.
    """
    return _security.may_put(user, host)


def put_check(rights: PutRights) -> Callable[[str, str], bool]:
    """Whether a client may put to channels of our own server, by its user name and address.

    Raises:
        SettingsError: a host is unknown, or the file cannot be used.
    """
    if rights.file:
        text = _read(rights.file)
        found = write_rules(text, _CONTROL) or write_rules(text, _DEFAULT)
        if found is None:
            raise SettingsError(f"--access-security: {rights.file} {_NO_GROUP}")
        return found.allow
    if not rights.clients:
        return lambda user, host: True
    group, text = _group_of(rights.clients)
    found = write_rules(text, group)
    return found.allow if found is not None else lambda user, host: False


class _Security:
    """The access security of this process: loaded once, and again when a group is added."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: dict[str, str] = {}
        self._file = ""
        self._file_groups: frozenset[str] = frozenset()
        self._inputs: WriteRules | None = None

    def may_put(self, user: str, host: str) -> bool:
        """Whether a client may put to channels of the group DEFAULT."""
        rules = self._inputs
        return rules is None or rules.allow(user, host)

    def group_for(self, server: pva.PvaServer, rights: PutRights) -> str:
        """The group of channels with these rights, which is loaded if it is not yet."""
        with self._lock:
            if rights.file:
                self._take_file(server, rights.file)
                return _CONTROL if _CONTROL in self._file_groups else _DEFAULT
            group, rules = _group_of(rights.clients) if rights.clients else (_DEFAULT, "")
            if not self._groups or group not in (_DEFAULT, *self._groups):
                groups = {_READ_ONLY: f"ASG({_READ_ONLY}) {{ RULE(1, READ) }}", **self._groups}
                if rules:
                    groups[group] = rules
                self._load(server, groups, self._file, self._file_groups)
            return group

    def _take_file(self, server: pva.PvaServer, path: str) -> None:
        text = _read(path)
        if text == self._file:
            return
        if self._file:
            raise SettingsError(
                f"--access-security: {path} cannot be combined with another file: a process has"
                " only one; use the same file for all its stages"
            )
        found = frozenset(_GROUP.findall(text))
        if not found & {_CONTROL, _DEFAULT}:
            raise SettingsError(f"--access-security: {path} {_NO_GROUP}")
        groups = {_READ_ONLY: f"ASG({_READ_ONLY}) {{ RULE(1, READ) }}", **self._groups}
        try:
            self._load(server, groups, text, found)
        except pva.PvaException as error:
            raise SettingsError(
                f"--access-security: {path} is not an access security file, or has a"
                f" mistake: {error}"
            ) from error

    def _load(
        self,
        server: pva.PvaServer,
        groups: Mapping[str, str],
        file: str,
        file_groups: frozenset[str],
    ) -> None:
        parts = [file, *groups.values()]
        if _DEFAULT not in file_groups:
            # Any client may put to channels that a user's processor adds by itself, as before.
            parts.append(f"ASG({_DEFAULT}) {{ RULE(1, READ) RULE(1, WRITE) }}")
        with tempfile.NamedTemporaryFile("w", prefix="pvapy-stream-", suffix=".acf") as made:
            made.write("\n".join(parts) + "\n")
            made.flush()
            server.initAs(made.name, "")
        self._groups, self._file, self._file_groups = dict(groups), file, file_groups
        self._inputs = write_rules(file, _DEFAULT)


_security = _Security()


def _group_of(clients: Iterable[str]) -> tuple[str, str]:
    """A group that lets these clients put: its name, and its text in a configuration."""
    clients = sorted(set(clients))
    name = f"{_PREFIX}CONTROL_{hashlib.sha256(','.join(clients).encode()).hexdigest()[:12]}"
    members: list[str] = []
    rules = ["RULE(1, READ)"]
    for number, client in enumerate(clients):
        user, at, host = client.rpartition("@")
        conditions: list[str] = []
        if at:
            members.append(f'UAG({name}_U{number}) {{ "{user}" }}')
            conditions.append(f"UAG({name}_U{number})")
        if host != "*":
            addresses = _addresses(host)
            if not addresses:
                raise SettingsError(
                    f"--control-from: host {host} is unknown; give its address, or check its name"
                )
            members.append(f"HAG({name}_H{number}) {{ {', '.join(addresses)} }}")
            conditions.append(f"HAG({name}_H{number})")
        rules.append(f"RULE(1, WRITE) {{ {' '.join(conditions)} }}")
    return name, "\n".join([*members, f"ASG({name}) {{ {' '.join(rules)} }}"])


def _read(path: str) -> str:
    """An access security file, with addresses for host names: the server compares addresses."""
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"--access-security: cannot read {path}: {error}") from error

    def resolved(found: re.Match[str]) -> str:
        addresses: list[str] = []
        for host in re.split(r"[\s,]+", found[2].replace('"', " ").strip()):
            known = _addresses(host) if host else []
            if host and not known:
                _log.warning("%s: host %s is unknown, and ignored", path, host)
            addresses += known
        return f"{found[1]} {', '.join(addresses)} }}"

    return _HOSTS.sub(resolved, _COMMENT.sub(lambda found: found[1] or "", text))


def _addresses(host: str) -> list[str]:
    """IPv4 addresses of a host; the binding's server has no others."""
    try:
        found = socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return sorted({str(entry[4][0]) for entry in found})
