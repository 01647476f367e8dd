"""Shared memory of one host: an object is copied once, and all later stages read that copy.

- `frames`, `attributes`: layout of an object in memory.
- `pool_file`, `pool_owner`, `pool_user`: payload pools, in which large objects stay until the last
  stage has finished with them; see `docs/decisions/0020-payload-pools.md`.
- `references`: what is sent for them; `payloads` makes and `pool_reader` reads references.
- `services`: iceoryx2 services, which carry the samples, and their memory; `nodes`: the iceoryx2
  node of this process.
- `peer_directory`, `peer_file`, `wakeup`, `user_folder`: files by which publishers and subscribers
  find each other, count what was taken, and wake each other.
- `set_service`, `subscriber_table`, `sender`: the publisher.
- `publisher_link`, `received_objects`, `receiver`: the receiver.
"""

from pvapy_stream.transport.shm.peer_directory import has_publisher
from pvapy_stream.transport.shm.receiver import ShmReceiver
from pvapy_stream.transport.shm.sender import ShmPublisher

__all__ = ["ShmPublisher", "ShmReceiver", "has_publisher"]
