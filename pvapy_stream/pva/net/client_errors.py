"""What can go wrong with a request to a server, by what may be done next."""

from __future__ import annotations

from pvapy_stream.errors import TransportError


class NotSentError(TransportError):
    """The request was never sent: it may be made again."""


class NoAnswerError(TransportError):
    """The request was sent and not answered: what became of it is not known.

    Whoever makes it again may have it done twice.
    """


class RefusedError(TransportError):
    """The server has answered that it does not do it."""
