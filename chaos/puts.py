"""``python -m chaos.puts NAME…``: a hostile client puts into outputs and status channels.

A program of its own: the binding ends a process that puts an object of another structure.
"""

from __future__ import annotations

import contextlib
import sys

import numpy as np
import pvaccess as pva

from chaos.pixels import pixels_of
from pvapy_stream.frame import Frame
from pvapy_stream.pva.ntndarray import ObjectBuilder

FOREIGN_ID = 987_654
FOREIGN_NUMBER = 999_999_999
_PATIENCE = 0.4  # s


def main() -> None:
    """Put into each of the channels what is no frame of the run."""
    image: np.ndarray = pixels_of(FOREIGN_ID, FOREIGN_NUMBER)
    foreign = ObjectBuilder().build(Frame.of(FOREIGN_ID, image))
    for name in sys.argv[1:]:
        channel = pva.Channel(name)
        channel.setTimeout(_PATIENCE)
        # A refusal is what should come.
        with contextlib.suppress(Exception):
            if "status" in name:
                channel.put(str(FOREIGN_ID), "objectId")
            elif channel.getIntrospectionDict() == foreign.getStructureDict():
                channel.put(foreign, "")


if __name__ == "__main__":
    main()
