"""Access security files of EPICS: who may put to channels of a group.

The binding evaluates them for the channels of its own server; this does it for those of ours. Of
the conditions of a rule, UAG and HAG are understood; a rule with any other grants nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct

_CONDITION = re.compile(r"\b(\w+)\s*\(([^)]*)\)")
_ITEM = re.compile(r'[^\s,"]+')


class _Rule(Struct, frozen=True):
    users: frozenset[str] | None  # None: any
    hosts: frozenset[str] | None
    understood: bool

    def holds(self, user: str, host: str) -> bool:
        return (
            self.understood
            and (self.users is None or user in self.users)
            and (self.hosts is None or host.lower() in self.hosts)
        )


class WriteRules(Struct, frozen=True):
    """Rules of one group that allow to put; level and order make no difference."""

    rules: tuple[_Rule, ...]

    def allow(self, user: str, host: str) -> bool:
        """Whether a client may put.

        Args:
            user: who it says it is.
            host: its address.
        """
        return any(rule.holds(user, host) for rule in self.rules)


def write_rules(text: str, group: str) -> WriteRules | None:
    """The rules of a group in a file without comments; None if it has no such group.

    Args:
        text: of the file, with addresses for host names.
        group: the ASG.
    """
    users, hosts = _members(text, "UAG"), _members(text, "HAG")
    for match in re.finditer(r"\bASG\s*\(([^)]*)\)\s*", text):
        if _items(match[1]) == [group]:
            body = _braced(text, match.end())
            return WriteRules(tuple(_rules(body, users, hosts)))
    return None


def _rules(
    body: str, users: Mapping[str, frozenset[str]], hosts: Mapping[str, frozenset[str]]
) -> list[_Rule]:
    found: list[_Rule] = []
    for match in re.finditer(r"\bRULE\s*\(([^)]*)\)\s*", body):
        words = [word.upper() for word in _items(match[1])]
        if "WRITE" not in words[1:2]:
            continue
        conditions = _CONDITION.findall(_braced(body, match.end()))
        known = {"UAG": users, "HAG": hosts}
        found.append(
            _Rule(
                _union(conditions, "UAG", users),
                _union(conditions, "HAG", hosts),
                all(name in known for name, _ in conditions),
            )
        )
    return found


def _union(
    conditions: list[tuple[str, str]], name: str, members: Mapping[str, frozenset[str]]
) -> frozenset[str] | None:
    groups = [_items(given) for kind, given in conditions if kind == name]
    if not groups:
        return None
    return frozenset().union(*(members.get(one, frozenset()) for some in groups for one in some))


def _members(text: str, kind: str) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for match in re.finditer(rf"\b{kind}\s*\(([^)]*)\)\s*(?={{)", text):
        # In a rule the same word is a condition, which has no braces.
        body = _items(_braced(text, match.end()))
        lower = [one.lower() for one in body] if kind == "HAG" else body
        for name in _items(match[1]):
            found[name] = found.get(name, frozenset()) | frozenset(lower)
    return found


def _items(text: str) -> list[str]:
    return _ITEM.findall(text)


def _braced(text: str, start: int) -> str:
    """What is in the braces that begin here; "" if none do."""
    if text[start : start + 1] != "{":
        return ""
    depth = 0
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if not depth:
            return text[start + 1 : place]
    return text[start + 1 :]
