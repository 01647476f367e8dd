"""Whether a server shares the updates of a channel out among clients, as pvapy's distributor does.

The distributor is a plugin of pvDatabase, and so is the field ``_`` for the whole structure. PVXS
refuses a request for ``_`` alone; QSRV 1 ignores what a request selects, and so accepts a field
that no channel has. Two gets that are set up and never made tell these apart, whatever a server
says about itself, and through gateways too.
"""

from __future__ import annotations

from typing import Protocol

from pvapy_stream.errors import TransportError
from pvapy_stream.pva.net.client_errors import RefusedError
from pvapy_stream.pva.wire.request import WHOLE

_NOBODY_HAS_IT = "pvapyStreamNoSuchField"


class Selecting(Protocol):
    """What is asked of a channel."""

    def select(self, fields: str, timeout: float) -> None:
        """Set up a get; `RefusedError` if the server does not, `NotSentError` after `timeout` s."""
        ...


def why_unshared(channel: Selecting, timeout: float) -> str:
    """Why the server of a channel cannot share its updates out; "" if it can.

    Raises:
        TransportError: it has not answered within `timeout` s for each of two questions.
    """
    try:
        channel.select(WHOLE, timeout)
    except RefusedError:
        return "its server (PVXS, as in p4p and NDPluginPvxs) has no distributor plugin"
    try:
        channel.select(_NOBODY_HAS_IT, timeout)
    except RefusedError:
        return ""
    return "its server (QSRV, as in softIocPVA) has no distributor plugin and ignores requests"


def no_answer(error: TransportError) -> str:
    """What is reported of a server that does not answer."""
    return f"its server does not tell whether it has a distributor plugin: {error}"
