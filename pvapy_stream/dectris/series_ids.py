"""Ids of the images of all series, and what did not come of them.

Image ids begin at 0 in each series. Object ids go on: a series has as many of them as it has images
announced, whether they come or not. So the first image of a series shows what is missing at the end
of the one before, to all stages behind.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.sequence import DISORDER
from pvapy_stream.dectris.messages import End, Image, SeriesName, Start
from pvapy_stream.errors import DectrisError

DUPLICATE = "duplicate image"
LATE = "late image"

_LARGEST = 2**31 - 1  # uniqueId of NTNDArray
_KEPT = 8  # series that late images may belong to
_MOST = 2**40  # images of a series; more are not counted

Report = Callable[[str], None]


@dataclass(slots=True)
class Series:
    """A series of which a message has come.

    Attributes:
        name: what names it.
        base: object id before that of its first image.
        epoch: how often ids had begun again before it.
        start: its start message; None if that did not come.
        n_images: how many images it has; None if that is not known.
        came: image ids that came.
        ended: whether its end message came.
        paused: whether nothing more is expected now: the connection is lost, or nothing comes.
        judged: whether what is missing was reported.
        warned: what was said once.
    """

    name: SeriesName
    base: int
    epoch: int
    start: Start | None = None
    n_images: int | None = None
    came: IdSet = field(default_factory=IdSet)
    ended: bool = False
    paused: bool = False
    judged: bool = False
    warned: set[str] = field(default_factory=set[str])

    @property
    def last_id(self) -> int:
        """Object id of its last image, as far as it is known."""
        last = self.came.last
        return self.base + max(self.n_images or 0, 0 if last is None else last + 1)


class Placed(NamedTuple):
    """Where an image belongs.

    Attributes:
        id: its object id.
        series: its series.
        anew: whether object ids begin again with it, or those before it are not known.
    """

    id: int
    series: Series
    anew: bool


class SeriesBook:
    """Knows the series. Not locked.

    Args:
        report: called with what is wrong.
        note: called with what is worth knowing.
        ends_early: whether a series that ends before all images came is complete.
    """

    def __init__(self, report: Report, note: Report, ends_early: bool = False) -> None:
        self._report = report
        self._note = note
        self._ends_early = ends_early
        self._now: Series | None = None
        self._recent: deque[Series] = deque(maxlen=_KEPT)
        self._epoch = 0
        # Whether ids begin again with the next image.
        self._anew = False
        self._last: int | None = None

    def start(self, message: Start) -> None:
        """A series begins."""
        now = self._now
        if now is not None and now.name == message.series and not now.ended:
            if now.start is None:
                self._note(f"{now.name}: its start message came after images")
                self._begin(now, message)
                return
            if not now.came or now.name.unique:
                self._note(f"{now.name}: its start message came again")
                return
        self._begin(self._open(message.series), message)

    def _begin(self, series: Series, message: Start) -> None:
        series.start = message
        if message.n_images is None:
            series.n_images = None
            self._report(
                f"{series.name}: its start message has no number of images, so it is not known"
                " whether any are missing at its end"
            )
            return
        series.n_images = min(message.n_images, _MOST)
        if (last := series.came.last) is not None and last >= series.n_images:
            self._extend(series, last)

    def _open(self, name: SeriesName) -> Series:
        base, before = 0, self._now
        if before is not None:
            self._judge(before, "a new series came, and no end message")
            base = before.last_id
            if base >= _LARGEST // 2:
                # Object ids have 31 bits; they begin again long before none are left.
                base, self._anew = 0, True
                self._epoch += 1
        series = Series(name, base, self._epoch)
        self._now = series
        self._recent.append(series)
        return series

    def image(self, message: Image) -> Placed | str:
        """An image has come; where it belongs, or why it is dropped.

        Raises:
            DectrisError: it cannot have an object id.
        """
        number = message.number
        series = self._find(message.series)
        if number >= _LARGEST // 2:
            raise DectrisError(f"image id {number} is too large")
        if series is None:
            series = self._open(message.series)
            self._report(
                f"{series.name}: images come, and its start message did not; it is not known how"
                " many images it has. Messages are distributed among all clients of a detector:"
                " is there another one?"
            )
        if number in series.came:
            return DUPLICATE
        value = series.base + number + 1
        late = series.epoch != self._epoch or (
            self._last is not None and not self._anew and self._last - value > DISORDER
        )
        past = series is not self._now and value > series.last_id
        if late or past:
            return LATE
        series.came.add(number)
        series.paused = False
        if series.n_images is not None and number >= series.n_images:
            self._extend(series, number)
        anew = self._anew or (self._last is None and series.start is not None and value > 1)
        self._last = value if anew or self._last is None else max(self._last, value)
        self._anew = False
        return Placed(value, series, anew)

    def _extend(self, series: Series, number: int) -> None:
        if "more" not in series.warned:
            series.warned.add("more")
            self._report(
                f"{series.name}: image {number} is one more than the {series.n_images} images of"
                " its start message"
            )
        series.n_images = number + 1

    def end(self, message: End) -> None:
        """A series ends."""
        series = self._find(message.series)
        if series is None:
            self._report(
                f"{message.series}: its end message came, and neither its start message nor an"
                " image: all of its images are missing, and it is not known how many"
            )
            return
        series.ended = True
        if self._ends_early and series is self._now:
            last = series.came.last
            series.n_images = 0 if last is None else last + 1
        self._judge(series, "")

    def pause(self) -> None:
        """Nothing more is expected now: the connection is lost, or nothing has come for long."""
        if self._now is not None:
            self._now.paused = True

    def close(self) -> None:
        """Nothing more will come."""
        if self._now is not None and not self._now.ended:
            self._judge(self._now, "its end message had not come when the receiver stopped")

    def start_of(self, name: SeriesName) -> Start | None:
        """Start message of a series; None if it did not come."""
        series = self._find(name)
        return series.start if series is not None else None

    @property
    def running(self) -> bool:
        """Whether a series has begun and not ended."""
        return self._now is not None and not self._now.ended

    @property
    def newest(self) -> int | None:
        """The largest object id that should have come; None before the first series."""
        series = self._now
        if series is None or self._anew:
            # What has not begun yet has no ids that a stage could compare.
            return self._last
        over = series.ended or series.paused
        return max(self._last or 0, series.last_id if over else series.base)

    def _find(self, name: SeriesName) -> Series | None:
        return next((one for one in reversed(self._recent) if one.name == name), None)

    def _judge(self, series: Series, why: str) -> None:
        """Report once what has not come of a series that is over."""
        if series.judged:
            return
        series.judged = True
        n_images, came = series.n_images, series.came
        if n_images is None or len(came) >= n_images:
            if why:
                self._note(f"{series.name}: {why}")
            return
        missing = IdSet.of_range(0, n_images - 1) - came
        self._report(
            f"{series.name}: {n_images - len(came)} of {n_images} images did not come: image ids"
            f" {missing}{f'; {why}' if why else ''}"
        )
