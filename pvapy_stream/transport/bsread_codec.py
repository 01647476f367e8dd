"""An earlier name of `pvapy_stream.bsread.codec`."""

import importlib
import sys

# By its name: bsread is above the transports, which import nothing of it.
sys.modules[__name__] = importlib.import_module("pvapy_stream.bsread.codec")
