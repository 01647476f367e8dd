"""Pages of the writer: its status and its interface. They work without a network."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from typing import Any

_ROW = "<tr><td>{method}</td><td><code>{path}</code></td><td>{summary}</td><td>{codes}</td></tr>"


def live_page() -> str:
    """A page that shows states, rates and lost ranges as they change."""
    return _read("writer.html")


def api_page(schema: dict[str, Any]) -> str:
    """A page that lists what an OpenAPI schema has.

    Args:
        schema: as `FastAPI.openapi` gives it.
    """
    rows = [
        _ROW.format(
            method=escape(method.upper()),
            path=escape(path),
            summary=escape(str(call.get("description") or call.get("summary", ""))),
            codes=escape(", ".join(call.get("responses", {}))),
        )
        for path, calls in schema["paths"].items()
        for method, call in calls.items()
    ]
    info = schema["info"]
    return (
        _read("api.html")
        .replace("{{title}}", escape(f"{info['title']} {info['version']}"))
        .replace("{{description}}", escape(info["description"]))
        .replace("{{rows}}", "\n".join(rows))
    )


def _read(name: str) -> str:
    return (files("pvapy_stream") / "data" / name).read_text("utf-8")
