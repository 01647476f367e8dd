"""The live page's server: pages, news, images, and commands behind a token."""

from __future__ import annotations

import asyncio
import html
import socket
import threading
from collections.abc import AsyncIterator, Callable

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field

from pvapy_stream import __version__
from pvapy_stream.errors import MonitorError, PvapyStreamError, SettingsError
from pvapy_stream.monitor.control import send_command
from pvapy_stream.monitor.statuses import COUNTS, LOSSES, RARE
from pvapy_stream.settings import DashboardSettings
from pvapy_stream.web.assets import STATIC, TEMPLATES
from pvapy_stream.web.live import LiveBoard
from pvapy_stream.web_security import Guard, bearer_is_right, host_names

_NEWS_POLL = 0.1  # s
_HEARTBEAT = 15.0  # s; a line of its own, so that a dead connection is noticed
_WRONG_TOKEN_DELAY = 0.5  # s; guessing must not be quick
_COMMAND_TIMEOUT = 15.0  # s
_END_TIMEOUT = 10.0  # s
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
        " frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class PageCommand(BaseModel):
    """A command from the page."""

    channel: str = Field(description="status channel of the stage")
    command: str = Field(min_length=1, max_length=100)
    args: str = Field("", max_length=100_000)


def _head(name: str) -> str:
    """The head of the column of a count; the page's script reads what it is from it."""
    marks = " data-loss" * (name in LOSSES) + " data-rare" * (name in RARE)
    return f'<th data-count="{name}"{marks}>{name}</th>'


def make_app(settings: DashboardSettings, board: LiveBoard, token: str) -> FastAPI:
    """The application.

    Args:
        settings: title and what may be done.
        board: what is shown; the caller starts and stops it.
        token: what commands need.
    """
    app = FastAPI(title="pvapy_stream", version=__version__, docs_url=None, redoc_url=None,
                  openapi_url=None)  # fmt: skip
    page = (TEMPLATES / "dashboard.html").read_text(encoding="utf-8")
    page = page.replace("COLUMNS", "".join(map(_head, COUNTS))).replace("VERSION", __version__)
    page = page.replace("TITLE", html.escape(settings.title))

    names = host_names(settings.address, settings.allow_host)
    app.add_middleware(Guard, names=names, headers=_HEADERS)

    @app.get("/", response_class=HTMLResponse)
    async def index() -> str:
        return page

    @app.get("/api/state")
    async def state() -> Response:
        return Response(board.state, media_type="application/json")

    @app.get("/api/history")
    async def history() -> Response:
        return Response(board.history(), media_type="application/json")

    @app.get("/api/events")
    async def events(request: Request) -> StreamingResponse:
        return StreamingResponse(
            _news(board, request),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    @app.get("/api/image")
    async def image(channel: str, colormap: str = "viridis", log: bool = False) -> Response:
        if channel not in board.image_channels():
            raise HTTPException(404, f"{channel} is not a channel of this page")
        try:
            png = await run_in_threadpool(board.picture, channel, colormap, log)
        except SettingsError as error:
            raise HTTPException(400, str(error)) from error
        except PvapyStreamError as error:
            raise HTTPException(503, str(error)) from error
        return Response(png, media_type="image/png", headers={"Cache-Control": "no-store"})

    @app.post("/api/command")
    async def command(asked: PageCommand, request: Request) -> dict[str, object]:
        if settings.read_only:
            raise HTTPException(403, "this page takes no commands (--read-only)")
        if not bearer_is_right(request.headers, token):
            await asyncio.sleep(_WRONG_TOKEN_DELAY)
            given = request.headers.get("authorization", "").removeprefix("Bearer").strip()
            what = "wrong token" if given else "a token is needed"
            raise HTTPException(401, f"{what}; it was shown where the dashboard was started")
        view = board.views.get(asked.channel)
        control = board.control_channel(view) if view else ""
        if not control:
            raise HTTPException(404, f"{asked.channel} is not a stage with a control channel")
        try:
            reply = await run_in_threadpool(
                send_command, control, asked.command, asked.args, _COMMAND_TIMEOUT
            )
        except MonitorError as error:
            raise HTTPException(504, str(error)) from error
        return {"ok": not reply.startswith("Error"), "reply": reply}

    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


async def _news(board: LiveBoard, request: Request) -> AsyncIterator[bytes]:
    """The state whenever it changes, as server-sent events."""
    seen = -1
    quiet = 0.0
    while not board.stopped and not await request.is_disconnected():
        if board.version != seen:
            seen, quiet = board.version, 0.0
            yield b"data: " + board.state + b"\n\n"
        elif quiet > _HEARTBEAT:
            quiet = 0.0
            yield b": still here\n\n"
        await asyncio.sleep(_NEWS_POLL)
        quiet += _NEWS_POLL


def serve(
    settings: DashboardSettings, token: str, say: Callable[[str], None], stop: threading.Event
) -> None:
    """Serve the page until `stop` is set.

    Args:
        settings: where, and what.
        token: what commands need.
        say: gets the address once it can be opened.
        stop: ends it.

    Raises:
        MonitorError: the address cannot be had.
        PvapyStreamError: the command cannot be sent to the stages.
    """
    board = LiveBoard(settings)
    listener = _listen(settings.address, settings.port)
    config = uvicorn.Config(
        make_app(settings, board, token),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=2,
        lifespan="off",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listener]}, name="web", daemon=True
    )
    board.start()
    try:
        thread.start()
        host = f"[{settings.address}]" if ":" in settings.address else settings.address
        say(f"http://{host}:{listener.getsockname()[1]}/")
        while thread.is_alive() and not stop.wait(0.5):
            pass
    finally:
        board.stop()
        server.should_exit = True
        thread.join(_END_TIMEOUT)
        listener.close()


def _listen(address: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return socket.create_server((address, port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        # create_server adds the address to the text, which this message has already.
        why = str(getattr(error, "strerror", None) or error).partition(" (")[0]
        raise MonitorError(
            f"cannot serve at {address}:{port}: {why}; choose others with --address and --port"
        ) from error
