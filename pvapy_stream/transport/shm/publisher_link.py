"""A receiver's connection to one publisher."""

from __future__ import annotations

import time

import iceoryx2 as iox

from pvapy_stream.transport.shm import services
from pvapy_stream.transport.shm.peer_directory import PeerDirectory
from pvapy_stream.transport.shm.peer_file import (
    SUBSCRIBER,
    PublisherFile,
    SubscriberInfo,
    SubscriberState,
)


class PublisherLink:
    """A connection to a publisher, with its own peer file.

    Attributes:
        publisher: peer file of the publisher.
        source: names the publisher.
        counters: counters of our peer file.
        port: subscriber of the iceoryx2 service; None until the publisher has created it.
        joined: whether the first object for us has arrived.
        first: whether nothing was delivered yet.
        anew: whether it replaces another publisher, and its ids start again.
        created_at: time of creation, by `time.monotonic`.
        taken: samples taken.
        sequence: number of the last sample.

    Raises:
        TransportError: the peer file cannot be created.
    """

    def __init__(
        self, directory: PeerDirectory, publisher: PublisherFile, info: SubscriberInfo
    ) -> None:
        self.publisher = publisher
        self._info = info
        self.source = f"shm {info.publisher}"
        self._file = directory.create(SUBSCRIBER, info)
        self.counters = self._file.counters
        self.port: iox.Subscriber | None = None
        self.joined = False
        self.first = True
        self.anew = False
        self.created_at = time.monotonic()
        self.taken = 0
        self.sequence = 0

    def open(self, node: iox.Node) -> None:
        """Subscribe to the service, if the publisher has created it."""
        info = self._info
        name = services.service_name(info.publisher, info.group, info.client_set)
        service = services.open_service(node, name)
        if service is None:
            return
        builder = service.subscriber_builder()
        longest = service.static_config.subscriber_max_buffer_size
        self.port = builder.buffer_size(min(info.queue or longest, longest)).create()
        self.counters.state = SubscriberState.READY

    @property
    def empty(self) -> bool:
        """Whether the queue is empty."""
        return self.port is None or not self.port.has_samples()

    def close(self) -> None:
        """Unsubscribe and remove our peer file."""
        if self.port is not None:
            self.port.delete()
            self.port = None
        self._file.close(remove=True)
        self.counters = self._file.counters
        self.publisher.close(remove=False)
