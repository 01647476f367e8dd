"""Channels on a PVA server of ours."""

from __future__ import annotations

from typing import Any


def host_readonly(server: Any, name: str, obj: Any) -> None:
    """Host a channel that clients may only read."""
    server.addRecord(name, obj, None)
