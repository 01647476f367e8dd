"""The output of a stage."""

from __future__ import annotations

import threading

import pvaccess as pva

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.errors import TransportError
from pvapy_stream.pva.lazy import StreamObject
from pvapy_stream.pva.objects import IdReader, as_late, id_reader, is_late, is_marked, without_mark
from pvapy_stream.transport.filtered_ids import FilteredChannel
from pvapy_stream.transport.ports import Publisher, PublisherCounts


class Output:
    """The stage's output as a processor sees it; notes which ids went out.

    Attributes:
        input_id: id of the object that is being processed.
        thread: the stage's thread, while it is in `process`.
        sent: whether `process` has published since this was last set to False.
        failure: why the last object could not be published.
        last_id: the id that was published last; None for none.
        later: whether the processor publishes outside of `process` too.
        late_ids: ids of objects that came late, as they were repaired: results are marked as late.
    """

    def __init__(
        self,
        publisher: Publisher,
        ledger: Ledger,
        id_field: str,
        filtered: FilteredChannel | None = None,
    ) -> None:
        self._publisher = publisher
        self.takes_lazy = publisher.takes_lazy
        self.ledger = ledger
        self.filtered = filtered
        self._id_field = id_field
        self._read_id: IdReader | None = None
        self._know_structure = False
        self._marked = False
        self.input_id = 0
        self.thread = 0
        self.sent = False
        self.later = False
        self.late_ids = IdSet()
        self._newest: int | None = None  # the id that was published last of those in order
        self.last_id: int | None = None
        self.failure: TransportError | None = None

    def updateOutputChannel(self, pvObject: StreamObject) -> None:
        """Publish an object.

        Raises:
            TransportError: it could not be published; the object counts as failed.
        """
        if not self._know_structure:
            self._know_structure = True
            # An output of another structure may have no id: then it goes by its input's.
            self._read_id = (
                id_reader(self._id_field, pvObject) if pvObject.hasField(self._id_field) else None
            )
            self._marked = is_marked(pvObject)
        if self._marked:
            # Made from a template that was the opening object: results are no such thing.
            pvObject = without_mark(pvObject)
        own = threading.get_ident() == self.thread
        value = self._id_of(pvObject)
        if self.late_ids and (self.input_id if own else value) in self.late_ids:
            pvObject = as_late(pvObject)
        # Of one that is in order, the mark says nothing.
        late = self._newest is not None and value < self._newest and is_late(pvObject)
        try:
            if late:
                self._publisher.publish_late(pvObject)
            else:
                self._publisher.publish(pvObject)
                self._newest = value
        except TransportError as error:
            # Kept too: processors written for the incumbent swallow what is raised here. A thread
            # of the processor's own publishes other objects than the one in `process`.
            if own:
                self.failure = error
            raise
        self.last_id = value
        self.ledger.publish(value)
        if own:
            self.sent = True
        else:
            self.later = True

    def _id_of(self, obj: StreamObject) -> int:
        if self._read_id is not None:
            try:
                return self._read_id(obj)
            except pva.PvaException:
                # One of another structure, which the publisher refuses with a better message.
                pass
        return self.input_id

    def reserve(self, nbytes: int) -> object | None:
        """Memory for the payload of an object, see `Publisher.reserve`. For any thread."""
        return self._publisher.reserve(nbytes)

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        # A frame that is sent to another process has none there.
        return type(None), ()

    def counts(self) -> PublisherCounts:
        return self._publisher.counts()

    def stop(self) -> None:
        self._publisher.stop()
