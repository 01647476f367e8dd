"""Memory for what is received, used again as soon as nothing refers to it.

New memory costs the kernel more than the pixels that are put into it: it is cleared page by page.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

_KEPT = 8  # pieces
_MOST = 512 * 2**20  # bytes of them
_ROUND = 4096  # bytes; sizes are multiples, so that messages of about one size share a piece


class Pool:
    """Pieces of memory of one connection."""

    def __init__(self) -> None:
        self._pieces: list[np.ndarray[Any, Any]] = []

    def take(self, size: int) -> memoryview:
        """Memory of a size, whose content is not defined.

        It is free again when the view, and all views and arrays made of it, are gone.

        Args:
            size: bytes.
        """
        wanted = -(-max(size, 1) // _ROUND) * _ROUND
        for number in range(len(self._pieces)):
            if self._pieces[number].nbytes == wanted and _free(self._pieces, number):
                return self._pieces[number].data[:size]
        piece = np.empty(wanted, np.uint8)
        self._keep(piece)
        return piece.data[:size]

    def _keep(self, piece: np.ndarray[Any, Any]) -> None:
        pieces = self._pieces
        pieces.append(piece)
        while len(pieces) > 1 and (
            len(pieces) > _KEPT or sum(one.nbytes for one in pieces) > _MOST
        ):
            # The oldest: it lives as long as something refers to it.
            del pieces[0]


def _free(pieces: list[np.ndarray[Any, Any]], number: int) -> bool:
    """Whether only the list refers to a piece, and this call while it looks."""
    return sys.getrefcount(pieces[number]) <= _ALONE


# As `_free` counts what nobody else refers to.
_PROBE = [np.empty(1, np.uint8)]
_ALONE = sys.getrefcount(_PROBE[0])
