"""Metrics for Prometheus: what a program has counted, told when it is asked."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from pvapy_stream.errors import MonitorError
from pvapy_stream.monitor.statuses import read_counts
from pvapy_stream.plugins import require
from pvapy_stream.settings import MetricsSettings
from pvapy_stream.web_security import host_names, refusal

PREFIX = "pvapy_stream_"

_END_TIMEOUT = 5.0  # s

_WsgiApp = Callable[[dict[str, Any], Any], Iterable[bytes]]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Metric:
    """One value of a metric.

    Attributes:
        name: without prefix, with the unit; a counter gets its ``_total`` by itself.
        help: what it is.
        kind: of metric.
        value: for a summary, the sum.
        labels: what tells it from others of the same name.
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


Collect = Callable[[], Iterable[Metric]]

# Of each count of a status, the metric and what it is.
_STAGE_COUNTS = {
    "received": ("received_objects", "Objects that arrived."),
    "processed": ("processed_objects", "Objects that were processed."),
    "filtered": ("filtered_objects", "Objects that the processor dropped on purpose."),
    "skipped": ("skipped_objects", "Initial updates and repeats, which are not processed."),
    "duplicates": ("duplicate_objects", "Objects whose id had come before."),
    "unknown": ("unknown_objects", "Ids in jumps, of which nothing is known."),
    "published": ("published_objects", "Objects that were published."),
    "missed": ("missed_objects", "Objects that should have come and did not."),
    "rejected": ("rejected_objects", "Objects that were dropped because a queue was full."),
    "errors": ("errors", "Errors of receiving, processing and publishing."),
    "overruns": ("overrun_objects", "Objects the sender replaced before they were taken."),
}
_STATES = (
    "starting", "waiting", "running", "paused", "disconnected", "draining", "stopped", "failed",
)  # fmt: skip


def stage_metrics(reports: Mapping[int, Any]) -> Iterator[Metric]:
    """Metrics of consumers or collectors, from their latest reports (`hpc.service.StageReport`)."""
    for stage_id, report in sorted(reports.items()):
        stats = report.stats
        labels = {"kind": report.kind, "stage": str(stage_id)}
        for state in _STATES:
            yield Metric(
                "stage_state", "1 for the state the stage is in.", "gauge",
                float(report.state == state), {**labels, "state": state},
            )  # fmt: skip
        if not stats:
            continue
        labels["channel"] = stats["inputChannel"]
        counts = read_counts(stats)
        for name, (metric, text) in _STAGE_COUNTS.items():
            yield Metric(f"stage_{metric}", text, "counter", counts[name], labels)
        again = "How often the stage was started again after it had died."
        yield Metric("stage_restarts", again, "counter", stats.get("restarts", 0), labels)
        queued = "Objects that wait to be processed."
        yield Metric("stage_queued_objects", queued, "gauge", counts["queued"], labels)
        last = "Id of the last object processed."
        yield Metric("stage_last_object_id", last, "gauge", stats["objectId"], labels)
        latency = stats.get("latencyStats", {})
        if latency.get("n"):
            yield Metric(
                "stage_latency_seconds",
                "Time from the detector until an object is processed, of a sample of objects.",
                "summary", latency["sum"], labels,
                {0.5: latency["p50"], 0.9: latency["p90"], 0.99: latency["p99"]}, latency["n"],
            )  # fmt: skip


def mirror_metrics(channels: Iterable[Any]) -> Iterator[Metric]:
    """Metrics of a mirror server, from its channels."""
    texts = {
        "received_objects": ("nReceived", "Updates that the source sent."),
        "published_objects": ("nPublished", "Updates that were published."),
        "overrun_objects": ("nOverruns", "Updates replaced before they were taken."),
        "errors": ("nErrors", "Errors of receiving and publishing."),
    }
    for channel in channels:
        counters = channel.counters()
        labels = {"channel": channel.entry.mirror, "source": channel.entry.source}
        for name, (key, text) in texts.items():
            yield Metric(f"mirror_{name}", text, "counter", counters[key], labels)


def simulator_metrics(channel: str, totals: Any, failed: int) -> Iterator[Metric]:
    """Metrics of a simulator, from its totals."""
    labels = {"channel": channel}
    yield Metric(
        "simulator_published_frames", "Frames published.", "counter", totals.frames, labels
    )
    late = "Frames that went out after their time."
    yield Metric("simulator_late_frames", late, "counter", totals.late, labels)
    broken = "Frames that could not be published."
    yield Metric("simulator_failed_frames", broken, "counter", failed, labels)


def writer_metrics(stream: str, progress: Iterable[Any]) -> Iterator[Metric]:
    """Metrics of a bsread writer, from how its acquisitions stand (`daq.progress.Progress`)."""
    found = list(progress)
    labels = {"stream": stream}
    for name, field_name, text in (
        ("written_messages", "rows", "Messages written."),
        ("written_bytes", "n_bytes", "Bytes of messages written."),
        ("lost_pulses", "n_lost", "Pulses of the ranges asked for that did not come."),
        ("late_pulses", "late", "Pulses that came after a higher one."),
        ("duplicate_pulses", "duplicates", "Pulses that came again."),
        ("malformed_messages", "malformed", "Messages that could not be read."),
    ):
        total = sum(getattr(one, field_name) for one in found)
        yield Metric(f"writer_{name}", text, "counter", total, labels)
    failed = sum(one.phase == "error" for one in found)
    yield Metric("writer_failed_acquisitions", "Acquisitions in error.", "gauge", failed, labels)
    busy = sum(one.phase in ("armed", "writing", "finishing") for one in found)
    yield Metric("writer_acquisitions", "Acquisitions under way.", "gauge", busy, labels)
    lags = [one.lag for one in found if one.lag is not None]
    if lags:
        text = "Time from a message's time stamp until it is taken."
        yield Metric("writer_lag_seconds", text, "gauge", lags[-1], labels)


@contextmanager
def served(settings: MetricsSettings, collect: Collect) -> Iterator[str]:
    """Serve ``/metrics`` while the program runs, if it was asked for.

    Args:
        settings: port and address.
        collect: gives the metrics; called from another thread whenever they are asked for.

    Yields:
        the address of the metrics, or "".

    Raises:
        MonitorError: the port cannot be had.
        MissingExtraError: prometheus-client is not installed.
    """
    port = settings.metrics_port
    if port is None:
        yield ""
        return
    # Imported late: few programs serve metrics, and an HTTP server takes long to import.
    from pvapy_stream.monitor.metrics_server import listen

    client = require("prometheus_client", "web")
    registry = client.CollectorRegistry()
    client.ProcessCollector(registry=registry)
    registry.register(_Collector(collect))
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
    """The application, for requests that call us by an address or one of the names."""

    def guarded(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        why = refusal("GET", {"host": environ.get("HTTP_HOST", "")}, names)
        if not why:
            return app(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{why}\n".encode()]

    return guarded


class _Collector:
    """What the client library asks, in its form."""

    def __init__(self, collect: Collect) -> None:
        self._collect = collect

    def collect(self) -> Iterator[Any]:
        core = require("prometheus_client.core", "web")
        families: dict[str, Any] = {}
        for metric in self._collect():
            name = PREFIX + metric.name
            family = families.get(name)
            if family is None:
                family = families[name] = core.Metric(name, metric.help, metric.kind)
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
        yield from families.values()
