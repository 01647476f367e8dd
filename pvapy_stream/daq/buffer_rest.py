"""Status and metrics of a buffer over HTTP. It is read-only, so it needs no protection."""

from __future__ import annotations

from collections.abc import Callable, Collection

from pvapy_stream import __version__
from pvapy_stream.bsread.analyzer import StreamAnalyzer
from pvapy_stream.daq.buffer_status import BufferStatus
from pvapy_stream.plugins import require
from pvapy_stream.status.metrics import PREFIX, MetricsCollector
from pvapy_stream.web_security import Guard

# Names began with the first before all programs had one prefix.
_PREFIXES = ("pvapy_", PREFIX)


def make_app(
    status: Callable[[], BufferStatus],
    analyzer: StreamAnalyzer | None,
    names: Collection[str] = frozenset({"localhost"}),
) -> object:
    """The web application.

    Args:
        status: returns the status of the buffer; called from the web server's thread.
        analyzer: its report is shown, if there is one.
        names: accepted host names, besides addresses; see `web_security.host_names`.

    Raises:
        MissingExtraError: FastAPI is not installed.
    """
    fastapi = require("fastapi", "web")
    prometheus = require("prometheus_client", "web")
    app = fastapi.FastAPI(
        title="pvapy_stream buffer", version=__version__, docs_url=None, redoc_url=None
    )
    app.add_middleware(Guard, names=names)
    registry = prometheus.CollectorRegistry(auto_describe=False)
    registry.register(MetricsCollector(lambda: [status().snapshot()], _PREFIXES))

    @app.get("/status")
    def show_status() -> dict[str, object]:
        """Status of the buffer."""
        return {"state": "ok", **status().to_dict()}

    @app.get("/metrics")
    def show_metrics() -> object:
        """The same for Prometheus."""
        return fastapi.Response(
            prometheus.generate_latest(registry), media_type="text/plain; version=0.0.4"
        )

    @app.get("/analyzer")
    def show_analysis() -> dict[str, object]:
        """Anomalies of the stream."""
        if analyzer is None:
            raise fastapi.HTTPException(404, "the buffer was started without --analyzer")
        return {"state": "ok", **analyzer.report()}

    return app
