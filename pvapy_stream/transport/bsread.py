"""An earlier name of `pvapy_stream.bsread.sockets`."""

from pvapy_stream.bsread.sockets import BsreadInput, BsreadSender

__all__ = ["BsreadInput", "BsreadSender"]
