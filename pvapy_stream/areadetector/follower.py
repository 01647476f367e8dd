"""Receives the images of a channel, also while none are written."""

from __future__ import annotations

from typing import Any

from pvapy_stream.streams.receiving import Receiving
from pvapy_stream.transport.ports import Return


class PluginReceiving(Receiving):
    """Receives as a subscription does, and keeps what its source shows at first.

    Attributes:
        shown: an object that is no image of the stream, but shows how they are; None if there was
            none, or it was taken.
        shown_after: how many images were received before it.
    """

    shown: Any = None
    shown_after = 0

    def _take(self, obj: Any, how: Return | None = None) -> bool:
        before = self.received
        taken = super()._take(obj, how)
        if self.received == before:
            self.shown_after, self.shown = before, obj.copy()
            self.queue.wake_all()
        return taken
