"""An earlier name of `pvapy_stream.bsread.sockets`."""

from pvapy_stream.bsread.sockets import BsreadInput, BsreadReceiver, BsreadSender

__all__ = ["BsreadInput", "BsreadReceiver", "BsreadSender"]
