"""Whether a server shares the updates of a channel out among clients, as pvapy's distributor does.

The distributor is a plugin of pvDatabase, and so is the field ``_`` for the whole structure. PVXS
refuses a request for ``_`` alone; QSRV 1 ignores what a request selects, and so accepts a field
that no channel has. Two gets that are set up and never made distinguish these, whatever a server
says about itself, and through gateways too.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from pvapy_stream.errors import TransportError
from pvapy_stream.pva.net.client_errors import RefusedError
from pvapy_stream.pva.wire.request import WHOLE

ANSWERS = 5.0  # s; for each of two questions
_NOBODY_HAS_IT = "pvapyStreamNoSuchField"


class Selecting(Protocol):
    """What is asked of a channel."""

    def select(self, fields: str, timeout: float) -> None:
        """Set up a get; `RefusedError` if the server does not, `NotSentError` after `timeout` s."""
        ...


class Sharing(NamedTuple):
    """What a server says of it.

    Attributes:
        why: why it cannot share updates out; "" if it can.
        answered: whether it has said so.
    """

    why: str
    answered: bool = True


def sharing_of(channel: Selecting, timeout: float) -> Sharing:
    """Whether the server of a channel can share its updates out; it has `timeout` s twice."""
    try:
        return Sharing(_why_unshared(channel, timeout))
    except TransportError as error:
        reason = f"its server does not report whether it has a distributor plugin: {error}"
        return Sharing(reason, answered=False)


def _why_unshared(channel: Selecting, timeout: float) -> str:
    try:
        channel.select(WHOLE, timeout)
    except RefusedError:
        return "its server (PVXS, as in p4p and NDPluginPvxs) has no distributor plugin"
    try:
        channel.select(_NOBODY_HAS_IT, timeout)
    except RefusedError:
        return ""
    return "its server (QSRV, as in softIocPVA) has no distributor plugin and ignores requests"
