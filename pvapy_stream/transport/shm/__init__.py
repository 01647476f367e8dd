"""Shared memory of one host: each object is copied once, and looked into by whoever takes it.

`frames` and `attributes` say what lies there, `memory` has the lanes it goes through (iceoryx2),
`room` is where both sides meet, `lanes` whose turn it is, `objects` what is delivered; `sender` and
`receiver` are the ways out and in.
"""

from pvapy_stream.transport.shm.receiver import ShmReceiver
from pvapy_stream.transport.shm.room import has_publisher
from pvapy_stream.transport.shm.sender import ShmPublisher

__all__ = ["ShmPublisher", "ShmReceiver", "has_publisher"]
