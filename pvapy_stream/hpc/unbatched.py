"""What a stage does about batches that has none: nothing. See `hpc.batches` for one that has."""

from __future__ import annotations

from typing import Any


class Unbatched:
    """A stage that processes each object as it takes it.

    Attributes:
        lock: is held while an object is processed.
        batching: whether the present processor gets batches.
        n_waiting: number of objects that wait for their batch to be complete.
    """

    lock: Any
    batching = False
    n_waiting = 0

    def start(self) -> None:
        """Begin; called before the first object."""

    def end(self) -> None:
        """Called after the last object."""

    def finish_batch(self) -> None:
        """Process what waits for its batch to be complete. Needs the lock of the stage."""

    def hurry(self) -> None:
        """Have what waits processed soon, in another thread; this itself waits for nothing."""

    def acquire(self, patience: float) -> bool:
        """Get the lock between two objects, when what waits now is processed.

        Args:
            patience: how long that may last, s; False if it lasts longer.
        """
        return self.lock.acquire(timeout=patience)

    def leave_batch(self) -> None:
        """Write down what still waits when the time to drain is over."""
