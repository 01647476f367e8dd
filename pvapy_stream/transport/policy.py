"""How the consumers of a group divide the objects of a stream.

- ``runs``: they take turns; each gets a run of successive objects, as with pvapy's distributor.
- ``least-queued``: the next run goes to the consumer with the fewest objects in its queue.
- ``sticky:FIELD``: all objects with the same value of an attribute (for objects that are no images:
  of a field) go to one consumer, as long as it is there.
"""

from __future__ import annotations

RUNS, LEAST_QUEUED = "runs", "least-queued"
_STICKY = "sticky:"


def checked_policy(text: str) -> str:
    """A policy as users give it.

    Raises:
        ValueError: there is no such policy.
    """
    if text in (RUNS, LEAST_QUEUED) or sticky_field(text):
        return text
    raise ValueError(
        f"--distributor-policy {text!r} is unknown; give {RUNS}, {LEAST_QUEUED} or {_STICKY}FIELD,"
        f" such as {_STICKY}runNumber"
    )


def sticky_field(policy: str) -> str:
    """The field of a policy ``sticky:FIELD``; "" for the others."""
    return policy[len(_STICKY) :].strip() if policy.startswith(_STICKY) else ""
