"""Limits of what a peer may make us keep."""

from __future__ import annotations

from msgspec import Struct


class Limits(Struct, frozen=True):
    """Limits of one connection; what exceeds them is malformed.

    Attributes:
        message: bytes of one message, all its segments together.
        string: bytes of one string.
        depth: levels of types in types, and of values of any type in such values.
        fields: fields of one type, all levels together.
        registry: fields of all types that a peer has registered.
        values: values of one message; an array of numbers is one of them.
    """

    message: int = 256 * 2**20
    string: int = 16 * 2**20
    depth: int = 32
    fields: int = 10_000
    registry: int = 100_000
    values: int = 1_000_000


DEFAULT = Limits()
