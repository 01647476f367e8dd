"""Metrics for Prometheus, made from the snapshots of a program at each request."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from msgspec import Struct, field

from pvapy_stream.errors import MonitorError
from pvapy_stream.plugins import require
from pvapy_stream.settings import MetricsSettings
from pvapy_stream.status.snapshot import Snapshot, own_of

PREFIX = "pvapy_stream_"

_END_TIMEOUT = 5.0  # s

_WsgiApp = Callable[[dict[str, Any], Any], Iterable[bytes]]

_log = logging.getLogger(__name__)


class Metric(Struct, frozen=True):
    """One value of a metric.

    Attributes:
        name: without prefix, with the unit; a counter gets its ``_total`` by itself.
        help: what it is.
        kind: of metric.
        value: for a summary, the sum.
        labels: distinguish it from others of the same name.
        quantiles: of a summary.
        count: of a summary.
    """

    name: str
    help: str
    kind: Literal["counter", "gauge", "summary"]
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)
    quantiles: Mapping[float, float] = field(default_factory=dict)
    count: float = 0


Collect = Callable[[], Iterable[Metric | Snapshot]]

# Programs with the common counts, and the prefixes of their metrics.
_COUNTING = {"consumer": "stage", "collector": "stage", "mirror": "mirror"}

# Of each count, the metric and what it is.
_COUNTS = {
    "received": ("received_objects", "Objects that arrived."),
    "processed": ("processed_objects", "Objects that were processed."),
    "filtered": ("filtered_objects", "Objects that the processor filtered."),
    "skipped": ("skipped_objects", "Initial updates and repeats, which are not processed."),
    "duplicates": ("duplicate_objects", "Objects whose id had arrived before."),
    "unknown": ("unknown_objects", "Ids in jumps, whose fate is unknown."),
    "repaired": (
        "repaired_objects",
        "Objects that were missed and came late, as they were asked for.",
    ),
    "published": ("published_objects", "Objects that were published."),
    "missed": ("missed_objects", "Objects that should have arrived and did not."),
    "rejected": ("rejected_objects", "Objects that were dropped because a queue was full."),
    "errors": ("errors", "Errors of receiving, processing and publishing."),
    "overruns": ("overrun_objects", "Objects that the sender replaced before they were received."),
}
_COPIED = ("no_slot", "no_memory", "subscriber")
_STATES = (
    "starting", "waiting", "running", "paused", "disconnected", "draining", "stopped", "failed",
)  # fmt: skip


def metrics(snapshot: Snapshot) -> Iterator[Metric]:
    """The metrics of a program."""
    prefix = _COUNTING.get(snapshot.kind)
    if prefix is not None:
        labels = snapshot.labels or {"kind": snapshot.kind, "stage": str(snapshot.id)}
        for state in _STATES:
            yield Metric(
                f"{prefix}_state", "1 for the state it is in.", "gauge",
                float(snapshot.state == state), {**labels, "state": state},
            )  # fmt: skip
        if snapshot.started:
            yield from _shared(prefix, snapshot, {"channel": snapshot.input_channel, **labels})
    for name, one in own_of(type(snapshot.own)).items() if snapshot.own is not None else ():
        value = getattr(snapshot.own, name)
        if one.metric and value is not None:
            metric = f"{snapshot.kind}_{one.metric}"
            yield Metric(metric, one.text, one.kind, value, snapshot.labels)


def _shared(prefix: str, snapshot: Snapshot, labels: Mapping[str, str]) -> Iterator[Metric]:
    counts = snapshot.counts()
    for name, (metric, text) in _COUNTS.items():
        yield Metric(f"{prefix}_{metric}", text, "counter", counts[name], labels)
    again = "Restarts of the process after it died."
    yield Metric(f"{prefix}_restarts", again, "counter", snapshot.restarts, labels)
    queued = "Objects in the queue."
    yield Metric(f"{prefix}_queued_objects", queued, "gauge", counts["queued"], labels)
    last = "Id of the last object processed."
    yield Metric(f"{prefix}_last_object_id", last, "gauge", snapshot.object_id, labels)
    pools = snapshot.pool_stats
    for reason in _COPIED if pools is not None else ():
        yield Metric(
            f"{prefix}_copied_objects",
            "Large objects that were copied, as no reference to shared memory could be sent.",
            "counter", getattr(pools, f"n_copied_{reason}"), {**labels, "reason": reason},
        )  # fmt: skip
    latency = snapshot.latency_stats
    if latency.n:
        yield Metric(
            f"{prefix}_latency_seconds",
            "Time from the detector until an object is processed, of a sample of objects.",
            "summary", latency.sum, labels,
            {0.5: latency.p50, 0.9: latency.p90, 0.99: latency.p99}, latency.n,
        )  # fmt: skip


@contextmanager
def served(settings: MetricsSettings, collect: Collect) -> Iterator[str]:
    """Serve ``/metrics`` while the program runs, if it is requested.

    Args:
        settings: port and address.
        collect: returns the metrics; called from another thread at each request.

    Yields:
        the address of the metrics, or "".

    Raises:
        MonitorError: the port cannot be bound.
        MissingExtraError: prometheus-client is not installed.
    """
    port = settings.metrics_port
    if port is None:
        yield ""
        return
    # Imported late: few programs serve metrics, and an HTTP server takes long to import.
    from pvapy_stream.status.metrics_server import listen
    from pvapy_stream.web_security import host_names

    client = require("prometheus_client", "web")
    registry = client.CollectorRegistry()
    client.ProcessCollector(registry=registry)
    registry.register(MetricsCollector(collect))
    names = host_names(settings.metrics_address, settings.allow_host)
    try:
        server = listen(
            settings.metrics_address, port, _for_hosts(client.make_wsgi_app(registry), names)
        )
    except OSError as error:
        raise MonitorError(
            f"cannot serve metrics at {settings.metrics_address}:{port}: {error.strerror}; choose"
            " another with --metrics-port"
        ) from error
    host = (
        f"[{settings.metrics_address}]"
        if ":" in settings.metrics_address
        else settings.metrics_address
    )
    address = f"http://{host}:{server.server_port}/metrics"
    _log.info("metrics are served at %s", address)
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield address
    finally:
        server.shutdown()
        server.server_close()
        thread.join(_END_TIMEOUT)


def _for_hosts(app: _WsgiApp, names: frozenset[str]) -> _WsgiApp:
    """The application, for requests to an address or to one of the host names."""
    from pvapy_stream.web_security import refusal

    def guarded(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        why = refusal("GET", {"host": environ.get("HTTP_HOST", "")}, names)
        if not why:
            return app(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{why}\n".encode()]

    return guarded


class MetricsCollector:
    """Converts the metrics for the client library.

    Args:
        collect: returns the metrics at each request.
        prefixes: prefixes of the names, including older ones.
    """

    def __init__(self, collect: Collect, prefixes: Iterable[str] = (PREFIX,)) -> None:
        self._collect = collect
        self._prefixes = tuple(prefixes)

    def collect(self) -> Iterator[object]:
        core = require("prometheus_client.core", "web")
        families: dict[str, object] = {}
        for found in self._collect():
            for metric in metrics(found) if isinstance(found, Snapshot) else (found,):
                for name in (prefix + metric.name for prefix in self._prefixes):
                    if name not in families:
                        families[name] = core.Metric(name, metric.help, metric.kind)
                    _add_samples(families[name], name, metric)
        yield from families.values()


def _add_samples(family: Any, name: str, metric: Metric) -> None:
    labels = dict(metric.labels)
    if metric.kind == "counter":
        family.add_sample(f"{name}_total", labels, metric.value)
    elif metric.kind == "gauge":
        family.add_sample(name, labels, metric.value)
    else:
        for quantile, value in metric.quantiles.items():
            family.add_sample(name, {**labels, "quantile": str(quantile)}, value)
        family.add_sample(f"{name}_count", labels, metric.count)
        family.add_sample(f"{name}_sum", labels, metric.value)
