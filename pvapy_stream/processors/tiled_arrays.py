"""Arrays that grow on a Tiled server, and what its errors mean."""

# The library is optional, so its types are unknown.
# pyright: reportMissingImports=false

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pvapy_stream.errors import ProcessorError, PvapyStreamError
from pvapy_stream.plugins import require

# Kinds of failures in ledgers; they contain no values.
NO_ANSWER = "tiled: no answer"
SERVER_ERROR = "tiled: server error"
DENIED = "tiled: access denied"
REFUSED = "tiled: refused"

# The arrays of one form of images. `count` is written last: rows below it are complete.
IMAGE, ID, TIME, VALUES, COUNT = "image", "id", "time_ns", "values", "count"

_CHUNK = 1 << 20  # bytes; small images share a chunk of this size
_MOST_NAMES = 1000
_MOST_FORMS = 100


class TiledError(ProcessorError):
    """A request failed.

    Attributes:
        kind: the kind of failure, for ledgers.
        temporary: whether it may work later.
    """

    def __init__(self, message: str, kind: str, temporary: bool) -> None:
        super().__init__(message)
        self.kind = kind
        self.temporary = temporary


@dataclass(slots=True)
class Rows:
    """Frames of one shape and pixel type, which are written together.

    Args:
        shape: of an image.
        dtype: of a pixel.
        began: when the first frame was added, s of the monotonic clock.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    began: float
    ids: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    images: list[np.ndarray] = field(default_factory=list)
    values: list[list[float]] = field(default_factory=list)
    nbytes: int = 0


@dataclass(slots=True)
class _Arrays:
    """The arrays of one form on the server.

    Attributes:
        suffix: end of their names.
        rows: number of complete rows.
        nodes: Tiled's clients of the arrays, by name.
        doubtful: whether the server may have counted rows that it did not acknowledge.
    """

    suffix: str
    rows: int = 0
    nodes: dict[str, Any] = field(default_factory=dict)
    doubtful: bool = False


class TiledRun:
    """The container of a run, with arrays that grow. Used by one thread at a time.

    The container is always a new one. If its name is taken by the same run, as after a restart, the
    next one gets a number; a name that another run has taken is an error.

    Args:
        uri: of the server, or of the container in which the run gets its own.
        key: reads the API key; called again when the server denies access.
        name: of the container.
        metadata: of the container; distinguishes runs.
        same_run: whether the metadata of another container are those of the same run.
        timeout: longest time without progress of a request, s.
    """

    def __init__(
        self,
        uri: str,
        key: Callable[[], str],
        name: str,
        metadata: Mapping[str, Any],
        same_run: Callable[[Mapping[str, Any]], bool],
        timeout: float,
    ) -> None:
        self._uri, self._key, self._name, self._timeout = uri, key, name, timeout
        self._same_run = same_run
        # A container with this mark was made by this object, though the reply was lost.
        self._mark = uuid.uuid4().hex
        self._metadata = {**metadata, "mark": self._mark}
        self._parent: Any = None
        self._container: Any = None
        self._forms: dict[tuple[Any, ...], _Arrays] = {}
        self._n_forms = 0
        self.path = ""

    def open(self) -> None:
        """Connect, and make the container, unless that was done before.

        Raises:
            MissingExtraError: Tiled is not installed.
            TiledError: a request failed, or another run has taken the name.
        """
        if self._container is not None:
            return
        _import_client()
        with self._errors():
            if self._parent is None:
                self._parent = self._connect()
            self._container = self._make_container()
        self.path = "/".join(filter(None, self._container.path_parts))

    def _connect(self) -> Any:
        from httpx import Timeout
        from tiled.client import from_uri

        parent = from_uri(
            self._uri, api_key=self._key(), timeout=Timeout(self._timeout), remember_me=False
        )
        if not hasattr(parent, "create_container"):
            raise TiledError(f"{self._uri} is no container of a Tiled server", REFUSED, False)
        return parent

    def _make_container(self) -> Any:
        for number in range(1, _MOST_NAMES):
            name = self._name if number == 1 else f"{self._name}.{number}"
            try:
                return self._parent.create_container(name, metadata=self._metadata)
            except Exception as error:
                if _status(error) != 409:
                    raise
            existing = self._parent[name]
            found = dict(existing.metadata)
            if found.get("mark") == self._mark:
                return existing
            if not self._same_run(found):
                raise TiledError(
                    f"{name} on the Tiled server is of another run; choose another name", REFUSED,
                    False,
                )  # fmt: skip
        raise TiledError(f"{self._name} has too many containers of this run", REFUSED, False)

    def write(self, rows: Rows) -> None:
        """Write rows after the last complete one; all of them, or the rows can be written again.

        Raises:
            MissingExtraError: Tiled is not installed.
            TiledError: a request failed, so that the rows are not counted.
        """
        self.open()
        with self._errors():
            arrays = self._arrays_of(rows)
            images = np.stack(rows.images)
            sums = images.sum(axis=tuple(range(1, images.ndim)), dtype=np.float64)
            values = np.column_stack([sums, np.array(rows.values).reshape(len(sums), -1)])
            for name, data in (
                (IMAGE, images),
                (TIME, np.array(rows.times, np.int64)),
                (VALUES, values),
                (ID, np.array(rows.ids, np.int64)),
            ):
                node = self._node(arrays, name, data)
                node.patch(data, offset=(arrays.rows, *[0] * (data.ndim - 1)), extend=True)
            count = arrays.rows + len(rows.ids)
            node = self._node(arrays, COUNT, np.zeros(1, np.int64))
            arrays.doubtful = True
            node.write(np.array([count], np.int64))
            arrays.doubtful = False
            arrays.rows = count

    def give_up(self, rows: Rows) -> None:
        """Rows that failed are not written again.

        If the server may have counted them, further rows go to new arrays: rows that a reader may
        have seen are never replaced.
        """
        form = (rows.shape, rows.dtype)
        if form in self._forms and self._forms[form].doubtful:
            del self._forms[form]

    def close(self) -> None:
        """Close the connections."""
        if self._parent is not None:
            self._parent.context.http_client.close()

    def _arrays_of(self, rows: Rows) -> _Arrays:
        form = (rows.shape, rows.dtype)
        if form not in self._forms:
            if self._n_forms >= _MOST_FORMS:
                raise TiledError(
                    f"the images of a run may have {_MOST_FORMS} forms; this one, {rows.dtype} of"
                    f" {rows.shape}, is one more", REFUSED, False,
                )  # fmt: skip
            self._n_forms += 1
            self._forms[form] = _Arrays("" if self._n_forms == 1 else f"_{self._n_forms}")
        return self._forms[form]

    def _node(self, arrays: _Arrays, name: str, data: np.ndarray) -> Any:
        if name not in arrays.nodes:
            arrays.nodes[name] = self._make_array(name + arrays.suffix, data)
        return arrays.nodes[name]

    def _make_array(self, name: str, data: np.ndarray) -> Any:
        """Make an array that begins with as many rows as its chunks; never more than `data`."""
        from tiled.structures.array import ArrayStructure, BuiltinDtype
        from tiled.structures.core import StructureFamily
        from tiled.structures.data_source import DataSource

        chunk = max(1, min(len(data), _CHUNK // max(1, data[0].nbytes)))
        structure = ArrayStructure(
            data_type=BuiltinDtype.from_numpy_dtype(data.dtype),
            shape=(chunk, *data.shape[1:]),
            chunks=tuple((size,) for size in (chunk, *data.shape[1:])),
        )
        source = DataSource(structure=structure, structure_family=StructureFamily.array)
        try:
            return self._container.new(StructureFamily.array, [source], key=name)
        except Exception as error:
            if _status(error) != 409:
                raise
        # Nobody else writes into the container: it was made, but the reply was lost.
        return self._container[name]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except PvapyStreamError:
            raise
        except Exception as error:
            found = _explain(error, self._uri)
            if found.kind == DENIED and self._parent is not None:
                # A key that has expired may have been replaced.
                with suppress(PvapyStreamError):
                    self._parent.context.api_key = self._key()
            raise found from error


def _import_client() -> None:
    """Import Tiled's client so that each request is sent once: retries are ours.

    Raises:
        MissingExtraError: it is not installed.
    """
    name = "TILED_RETRY_ATTEMPTS"
    given = os.environ.get(name)
    os.environ.setdefault(name, "1")
    try:
        for module in ("tiled.client", "tiled.structures.array"):
            require(module, "tiled")
    finally:
        if given is None:
            os.environ.pop(name, None)
    # It would log each request.
    log = logging.getLogger("httpx")
    if log.level == logging.NOTSET:
        log.setLevel(logging.WARNING)


def _status(error: BaseException) -> int:
    """Status of the reply; 0 if there was none."""
    found = getattr(getattr(error, "response", None), "status_code", 0)
    return int(found or 0)


def _explain(error: Exception, uri: str) -> TiledError:
    import httpx

    status = _status(error)
    if status in (401, 403):
        return TiledError(
            f"the Tiled server {uri} denies access ({status}): the API key is wrong, has expired,"
            " or may not write", DENIED, True,
        )  # fmt: skip
    if status >= 500 or status == 429:
        return TiledError(f"the Tiled server {uri} has failed ({status})", SERVER_ERROR, True)
    if isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL):
        return TiledError(f"{uri} cannot be the address of a Tiled server", REFUSED, False)
    if isinstance(error, httpx.TransportError):
        reason = str(error) or type(error).__name__
        return TiledError(f"the Tiled server {uri} does not answer: {reason}", NO_ANSWER, True)
    return TiledError(
        f"the Tiled server {uri} has refused: {type(error).__name__}: {error}", REFUSED, False
    )
