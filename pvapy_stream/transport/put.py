"""Publisher: puts to a channel on the PVA server of another program."""

from __future__ import annotations

from typing import cast

from pvapy_stream.errors import TransportError
from pvapy_stream.pva.convert import Value, binding_kind
from pvapy_stream.pva.wire.types import AnyValue, Structure
from pvapy_stream.transport.remote import ChannelPublisher

# s; for an answer, which a slow stage gives within a few seconds. A put cannot be taken back, so
# what has not been answered is not put again.
_ANSWER = 10.0


class PutPublisher(ChannelPublisher):
    """Puts each object to a remote channel, such as the input of a ``pvas`` consumer.

    Args:
        channel: name of the channel.
        limit: longest time for which an object is retried if the other side fails, s.
    """

    def __init__(self, channel: str, limit: float) -> None:
        super().__init__(channel, f"cannot put to channel {channel}", limit)
        self._agree: tuple[object, object] | None = None  # types that are known to agree

    def _send(self, obj: AnyValue, patience: float) -> None:
        # A restarted server may have another structure.
        theirs = self.remote.put_kind(patience)
        ours = cast("Structure", obj.type)
        if self._agree is None or self._agree[0] is not ours or self._agree[1] is not theirs:
            self._check(ours, theirs)
            self._agree = ours, theirs
        self.remote.put(theirs, cast("Value", obj.value), patience, _ANSWER)

    def _check(self, ours: Structure, theirs: Structure) -> None:
        """Check whether the structures agree; their type ids need not."""
        mine, other = binding_kind(ours), binding_kind(theirs)
        wrong = [name for name, kind in mine.items() if other.get(name) != kind]
        wrong += [name for name in other if name not in mine]
        if wrong:
            raise TransportError(
                f"cannot put to channel {self.channel}: its structure differs in"
                f" {', '.join(dict.fromkeys(wrong))}; the receiving processor's"
                " getInputPvObjectType must return the structure of the sent object"
            )
