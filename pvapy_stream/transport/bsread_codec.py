"""An earlier name of `pvapy_stream.bsread.codec`."""

from pvapy_stream.bsread.codec import *  # noqa: F403
