"""Distribution of updates among clients, as pvapy's clients ask for it.

A client asks with an option of the whole structure (``_[pydistributor=group:G;set:S;…]``) or of one
field. The sets of a group take turns, in the order in which they came: each gets a run of updates.
In a set each update goes to all clients, or the run goes to one client, and the next run of the set
to the next one. Where a trigger is asked for, or a field carries the option, an update counts as
new when the value of that field differs from the one before; else each is new. (The plugin, which
gets no bit sets of updates, then looks at the time stamp.) Trigger, length of the runs and mode of
a set are those of its first client.
"""

from __future__ import annotations

from typing import Generic, TypeVar, cast

from msgspec import Struct

from pvapy_stream.pva.net.encoded_updates import Update
from pvapy_stream.pva.wire.request import OPTIONS, WHOLE, inside
from pvapy_stream.pva.wire.types import AnyValue, Structure

# Requests that share the updates are equal in these; nothing else is asked of them.
Member = TypeVar("Member")

_PLUGINS = ("pydistributor", "distributor")
_STAMP = "timeStamp"


class Share(Struct, frozen=True):
    """What a client asks of the distributor.

    Attributes:
        group: clients of a group share the updates.
        client_set: its set in the group.
        trigger: path of the field whose value distinguishes updates; "": ``field``, or none: each
            update is another one.
        field: that carries the option; "" for the whole structure.
        updates: length of a run.
        all: whether all clients of the set get each update of a run.
    """

    group: str = "default"
    client_set: str = "default"
    trigger: str = ""
    field: str = ""
    updates: int = 1
    all: bool = False


def asked_share(request: AnyValue) -> Share | None:
    """What a client's request asks of the distributor; None if it asks nothing of it."""
    fields = inside(request.value, "field")
    for name, below in fields.items():
        options = inside(below, OPTIONS)
        for plugin in _PLUGINS:
            if plugin in options:
                return _share("" if name == WHOLE else name, str(options[plugin]))
    return None


def _share(field: str, text: str) -> Share | None:
    group, client_set, trigger, updates, mode = "default", "", "", 1, ""
    for item in text.split(";"):
        key, separator, value = item.partition(":")
        key = key.lower()
        if not separator:
            continue
        if key.startswith("updates"):
            updates = _whole(value)
        elif key.startswith("group"):
            group = value
        elif key.startswith("set"):
            client_set = value
        elif key.startswith("mode"):
            mode = value.lower()
        elif key.startswith("trigger"):
            trigger = value
    if updates <= 0:
        return None
    to_all = mode == "all" or (mode != "one" and bool(client_set))
    return Share(group, client_set or "default", trigger, field, updates, to_all)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return 0


class _Set(Generic[Member]):
    """Clients of a set, in the order in which they came."""

    def __init__(self, share: Share) -> None:
        self.share = share
        self.clients: list[Member] = []
        self.place: int | None = None  # of the client whose turn it is; None: begin anew
        self.done = 0  # updates of the run
        self.last: object = None

    def remove(self, client: Member) -> None:
        place = self.clients.index(client)
        del self.clients[place]
        self.place = _after_removal(self.place, place, len(self.clients))

    def trigger(self, update: Update) -> object:
        """The value that distinguishes the update from the one before."""
        field = self.share.field
        if field:
            found = _bytes_at(update, field)
            below = None
            if isinstance(update.kind.get(field), Structure):
                below = _bytes_at(update, f"{field}.{self.share.trigger or _STAMP}")
            return found if below is None else below
        if not self.share.trigger:
            return update
        found = _bytes_at(update, self.share.trigger)
        return update if found is None else found


class Group(Generic[Member]):
    """The sets of a group."""

    def __init__(self) -> None:
        self._sets: list[_Set[Member]] = []
        self._place: int | None = None
        self._last: object = None

    @property
    def empty(self) -> bool:
        """Whether it has no clients."""
        return not self._sets

    def add(self, client: Member, share: Share) -> None:
        """A client has come."""
        for one in self._sets:
            if one.share.client_set == share.client_set:
                break
        else:
            one = _Set[Member](share)
            self._sets.append(one)
        one.clients.append(client)

    def remove(self, client: Member) -> None:
        """A client has gone."""
        for place, one in enumerate(self._sets):
            if client in one.clients:
                one.remove(client)
                if not one.clients:
                    del self._sets[place]
                    self._place = _after_removal(self._place, place, len(self._sets))
                return

    def takers(self, update: Update) -> list[Member]:
        """Who gets an update; the turn moves on."""
        if self._place is None:
            self._place = 0
        one = self._sets[self._place]
        value = one.trigger(update)
        if value == self._last:
            return []
        if one.share.all:
            return self._to_all(one, value)
        if one.place is None:
            one.place = 0
        taker = one.clients[one.place]
        self._last = one.last = value
        one.done += 1
        if one.done >= one.share.updates:
            one.place = _next(one.place, len(one.clients))
            self._end_run(one)
        return [taker]

    def _to_all(self, one: _Set[Member], value: object) -> list[Member]:
        if value != one.last:
            one.last = value
            one.done += 1
        takers = list(one.clients)
        if one.done >= one.share.updates:
            self._last = value
            self._end_run(one)
        return takers

    def _end_run(self, one: _Set[Member]) -> None:
        one.done = 0
        self._place = _next(self._place, len(self._sets))


def _next(place: int | None, count: int) -> int | None:
    following = (place or 0) + 1
    return following if following < count else None


def _after_removal(place: int | None, removed: int, count: int) -> int | None:
    if place is None or place < removed:
        return place
    place = place - 1 if place > removed else place
    return place if place < count else None


def _bytes_at(update: Update, path: str) -> object:
    """A field as it is sent, which may be compared; None if there is none of this path."""
    name, _, rest = path.partition(".")
    for number, (other, kind) in enumerate(update.kind.fields):
        if other == name:
            if not rest:
                return update.chunk(number)
            return _value_at(update.value[name], kind, rest)
    return None


def _value_at(value: object, kind: object, path: str) -> object:
    name, _, rest = path.partition(".")
    if not isinstance(kind, Structure) or kind.get(name) is None:
        return None
    inner = cast("dict[str, object]", value)[name]
    return _value_at(inner, kind.get(name), rest) if rest else repr(inner)
