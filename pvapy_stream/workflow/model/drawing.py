"""Draws a workflow as SVG: protocols in columns, arrows from outputs to inputs."""

from __future__ import annotations

from xml.sax.saxutils import escape

from pvapy_stream.workflow.model.graph import Workflow
from pvapy_stream.workflow.model.node import Node
from pvapy_stream.workflow.model.parameters import Setting
from pvapy_stream.workflow.model.streaming_stage import DEFAULT_QUEUE

_WIDTH, _HEIGHT, _ACROSS, _DOWN, _MARGIN = 170, 58, 90, 34, 20
_STYLE = (
    "text{font:13px sans-serif;fill:#1c2733}.small{font-size:11px;fill:#51606f}"
    ".stage{fill:#e3f0fb;stroke:#2f74b5}.steps{fill:#eaf6e6;stroke:#4b8b3b}"
    ".arrow{fill:none;stroke:#51606f;stroke-width:1.4}.after{stroke-dasharray:5 4}"
)


def draw(flow: Workflow) -> str:
    """The workflow as SVG, which needs nothing else to be shown."""
    places = _places(flow)
    width = max((x for x, _ in places.values()), default=0) + _WIDTH + _MARGIN
    height = max((y for _, y in places.values()), default=0) + _HEIGHT + _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}">',
        f"<title>{escape(flow.name or 'workflow')}</title><style>{_STYLE}</style>",
        '<defs><marker id="head" markerWidth="9" markerHeight="8" refX="8" refY="4" orient="auto">'
        '<path d="M0,0 L9,4 L0,8 z" fill="#51606f"/></marker></defs>',
    ]
    for node in flow.nodes.values():
        parts += _arrows(node, places)
    parts += [_box(node, *places[node.label]) for node in flow.nodes.values()]
    return "\n".join([*parts, "</svg>", ""])


def _places(flow: Workflow) -> dict[str, tuple[int, int]]:
    """Left upper corners: a column further right than all it needs."""
    column: dict[str, int] = {}
    rows: dict[int, int] = {}
    places: dict[str, tuple[int, int]] = {}
    for node in flow.in_order():
        mine = 1 + max((column[need] for need in node.needs()), default=-1)
        column[node.label] = mine
        row = rows[mine] = rows.get(mine, -1) + 1
        places[node.label] = (
            _MARGIN + mine * (_WIDTH + _ACROSS),
            _MARGIN + row * (_HEIGHT + _DOWN),
        )
    return places


def _box(node: Node, x: int, y: int) -> str:
    kind = "stage" if node.is_stage else "steps"
    text = [
        f"<g><title>{escape(_details(node))}</title>"
        f'<rect class="{kind}" x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="7"/>'
    ]
    name = node.class_name.rpartition(":")[2]
    n = node.params.get("n_consumers", 1)
    lines = [("", node.label), ("small", f"{name}{f' × {n}' if n != 1 else ''}")]  # noqa: RUF001
    for number, (style, line) in enumerate(lines):
        short = line if len(line) <= 24 else f"{line[:23]}…"
        text.append(
            f'<text class="{style}" x="{x + 12}" y="{y + 25 + 19 * number}">{escape(short)}</text>'
        )
    return "".join([*text, "</g>"])


def _details(node: Node) -> str:
    return "\n".join([node.comment or node.label, *(f"{k}: {v}" for k, v in node.params.items())])


def _arrows(node: Node, places: dict[str, tuple[int, int]]) -> list[str]:
    queue = node.form().params.get("server_queue_size")
    size = node.params.get("server_queue_size", getattr(queue, "default", ""))
    if isinstance(queue, Setting) and "server_queue_size" not in node.params:
        size = DEFAULT_QUEUE
    arrows = [
        _arrow(places[str(to).partition(".")[0]], places[node.label], "", f"queue {size}")
        if node.is_stage
        else _arrow(
            places[str(to).partition(".")[0]], places[node.label], "", str(to).partition(".")[2]
        )
        for _, _, to in node.pointers()
    ]
    return arrows + [_arrow(places[one], places[node.label], " after", "") for one in node.after]


def _arrow(start: tuple[int, int], end: tuple[int, int], style: str, words: str) -> str:
    x1, y1 = start[0] + _WIDTH, start[1] + _HEIGHT // 2
    x2, y2 = end[0], end[1] + _HEIGHT // 2
    middle = (x1 + x2) // 2
    curve = f"M{x1},{y1} C{middle},{y1} {middle},{y2} {x2 - 2},{y2}"
    return (
        f'<path class="arrow{style}" d="{curve}" marker-end="url(#head)"/>'
        f'<text class="small" x="{x1 + 8}" y="{y1 - 7}">{escape(words)}</text>'
    )
