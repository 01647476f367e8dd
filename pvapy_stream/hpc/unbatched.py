"""What a stage does about batches that has none: nothing. See `hpc.batches` for one that has."""

from __future__ import annotations


class Unbatched:
    """A stage that processes each object as it takes it.

    Attributes:
        batching: whether the present processor gets batches.
        n_batches: number of batches that are over.
        n_waiting: number of objects that wait for their batch to be complete.
    """

    batching = False
    n_batches = 0
    n_waiting = 0

    def start(self) -> None:
        """Begin; called before the first object."""

    def end(self) -> None:
        """Called after the last object."""

    def finish_batch(self) -> None:
        """Process what waits for its batch to be complete. Needs the lock of the stage."""

    def hurry(self) -> int:
        """Have what waits processed soon, in another thread; this itself waits for nothing.

        Returns:
            number of the present batch, which is over when `n_batches` is larger.
        """
        return -1

    def leave_batch(self) -> None:
        """Write down what still waits when the time to drain is over."""
