"""The writer's REST interface; needs the extra `web`."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Collection
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import ValidationError
from starlette.exceptions import HTTPException as StarletteError

from pvapy_stream import __version__
from pvapy_stream.daq.acquisition import Acquisition
from pvapy_stream.daq.pages import api_page, live_page
from pvapy_stream.daq.replies import (
    ErrorReply,
    OverviewReply,
    ParametersReply,
    StartRequest,
    StatisticsReply,
    StatusReply,
    statistics_of,
    status_of,
)
from pvapy_stream.daq.writer import AcquisitionWriter
from pvapy_stream.errors import (
    ConflictError,
    FileError,
    PvapyStreamError,
    RangeError,
    SettingsError,
    TransportError,
)
from pvapy_stream.web_security import from_a_browser, from_another_site, host_names, refusal

_MOST_BYTES = 1_000_000  # of a request
_ERRORS: dict[int | str, dict[str, object]] = {
    code: {"model": ErrorReply} for code in (400, 401, 403, 404, 409, 413, 507)
}
_OPTIONAL_BODY = {
    "requestBody": {
        "required": False,
        "content": {"application/json": {"schema": StartRequest.model_json_schema()}},
    }
}
_PARAMETERS_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": [
                        "general/created",
                        "general/user",
                        "general/process",
                        "general/instrument",
                    ],
                    "additionalProperties": {"type": "string"},
                }
            }
        },
    }
}

_BEARER = HTTPBearer(auto_error=False, description="only if the writer has a token")

PulseId = Annotated[int, Path(description="a pulse id, from 0 to 2^63 - 1")]
Number = Annotated[int, Path(description="number of an acquisition, 1 for the first")]

# Errors of `Destination` and of the system, which mean that a file is not permitted.
_FORBIDDEN = ("permission denied", "is outside of", "the only file that this writer writes")

_log = logging.getLogger(__name__)


def build_app(writer: AcquisitionWriter, token: str = "") -> FastAPI:
    """The application.

    Args:
        writer: what it controls.
        token: bearer token that requests must have; "" for none.
    """
    settings = writer.settings
    names = host_names(settings.rest_host, settings.allow_host)
    app = FastAPI(
        title="pvapy_stream writer",
        version=__version__,
        description="Controls which pulses a writer of bsread streams writes, and to which file.",
        docs_url=None,
        redoc_url=None,
        responses=_ERRORS,
    )
    allowed = [Depends(_Token(token))]
    _add_pages(app)
    _add_reports(app, writer, allowed)
    _add_starts_and_stops(app, writer, allowed)
    _add_numbered(app, writer, allowed)
    _add_errors(app, names)
    for calls in app.openapi()["paths"].values():
        for call in calls.values():
            # FastAPI's own number for what is 400 here.
            call["responses"].pop("422", None)
    return app


class _Token:
    """Lets requests in that have the token; and none that a page of another site has made."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def __call__(
        self,
        request: Request,
        given: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)],
    ) -> None:
        if from_another_site(request.headers):
            raise HTTPException(403, "pages of other sites have no access to this writer")
        # As bytes: the comparison refuses texts with other letters than ASCII.
        shown = given.credentials.encode() if given else b""
        if self._token and not secrets.compare_digest(shown, self._token):
            raise HTTPException(
                401,
                "a bearer token is needed, and it is missing or wrong",
                {"WWW-Authenticate": "Bearer"},
            )


def _no_browser(request: Request) -> None:
    """Refuse a GET that changes something to browsers: any page can make them send it."""
    headers = request.headers
    agent = headers.get("user-agent", "")
    # Browsers leave Sec-Fetch out where the server has a name, and no https.
    if from_a_browser(headers) or "referer" in headers or agent.startswith("Mozilla/"):
        raise HTTPException(403, "a browser may not do this with GET; use POST")


def _add_pages(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    def page() -> HTMLResponse:
        return HTMLResponse(live_page())

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(api_page(app.openapi()))


def _add_reports(app: FastAPI, writer: AcquisitionWriter, allowed: Any) -> None:
    """Calls that users know, about the newest acquisition: those that read and those that set."""

    @app.get("/status", dependencies=allowed)
    def status() -> StatusReply:
        """Return the state of the newest acquisition."""
        return status_of(writer.current.progress())

    @app.get("/statistics", dependencies=allowed)
    def statistics() -> StatisticsReply:
        """Return what was counted."""
        return _statistics(writer.current)

    @app.post("/parameters", dependencies=allowed, openapi_extra=_PARAMETERS_BODY)
    def parameters(given: Annotated[dict[str, object], Depends(_json_object)]) -> ParametersReply:
        """Set the texts that go to /general of the file; all four must be given."""
        writer.set_parameters(given)
        status = writer.current.progress().status
        return ParametersReply(status=status, parameters=writer.parameters)


def _add_starts_and_stops(app: FastAPI, writer: AcquisitionWriter, allowed: Any) -> None:
    """Calls that users know, about the newest acquisition: what begins and ends it."""

    @app.put("/start_pulse_id/{pulse_id}", dependencies=allowed, openapi_extra=_OPTIONAL_BODY)
    def start_pulse_id(
        pulse_id: PulseId, given: Annotated[StartRequest, Depends(_start_request)]
    ) -> StatusReply:
        """Write from this pulse on, which may have passed."""
        return _start(writer, pulse_id, given)

    @app.put("/start_now", dependencies=allowed, openapi_extra=_OPTIONAL_BODY)
    def start_now(given: Annotated[StartRequest, Depends(_start_request)]) -> StatusReply:
        """Write from now on."""
        return _start(writer, None, given)

    @app.put("/stop_pulse_id/{pulse_id}", dependencies=allowed)
    def stop_pulse_id(pulse_id: PulseId) -> StatusReply:
        """End with this pulse, which may have passed."""
        return _stop(writer.current, pulse_id)

    @app.put("/stop_now", dependencies=allowed)
    def stop_now() -> StatusReply:
        """End now."""
        return _stop(writer.current, None)

    @app.post("/stop", dependencies=allowed)
    @app.get("/stop", dependencies=[Depends(_no_browser), *allowed])
    def stop() -> StatusReply:
        """Close the files, then end the program; with --service, only the newest acquisition."""
        if writer.settings.service:
            writer.end([writer.current])
        else:
            writer.close()
        return status_of(writer.current.progress())

    @app.post("/kill", dependencies=allowed)
    @app.get("/kill", dependencies=[Depends(_no_browser), *allowed])
    def kill() -> StatusReply:
        """Close all files as they are and end the program."""
        writer.close()
        return status_of(writer.current.progress())


def _add_numbered(app: FastAPI, writer: AcquisitionWriter, allowed: Any) -> None:
    """Calls about any of several acquisitions."""

    @app.get("/acquisitions", dependencies=allowed)
    def acquisitions() -> OverviewReply:
        """Return all that is known of all acquisitions."""
        found = [asdict(one.progress()) for one in writer.acquisitions]
        status = writer.current.progress().status
        return OverviewReply(status=status, stream=writer.settings.stream, acquisitions=found)

    @app.get("/acquisitions/{number}", dependencies=allowed)
    def one(number: Number) -> StatusReply:
        """Return the state of an acquisition."""
        return status_of(_found(writer, number).progress())

    @app.get("/acquisitions/{number}/statistics", dependencies=allowed)
    def one_statistics(number: Number) -> StatisticsReply:
        """Return what an acquisition counted."""
        return _statistics(_found(writer, number))

    @app.put("/acquisitions/{number}/stop_pulse_id/{pulse_id}", dependencies=allowed)
    def one_stop_pulse_id(number: Number, pulse_id: PulseId) -> StatusReply:
        """End an acquisition with this pulse."""
        return _stop(_found(writer, number), pulse_id)

    @app.put("/acquisitions/{number}/stop_now", dependencies=allowed)
    def one_stop_now(number: Number) -> StatusReply:
        """End an acquisition now."""
        return _stop(_found(writer, number), None)


def _found(writer: AcquisitionWriter, number: int) -> Acquisition:
    try:
        return writer.find(number)
    except KeyError:
        raise HTTPException(404, f"there is no acquisition {number}") from None


def _start(writer: AcquisitionWriter, pulse_id: int | None, given: StartRequest) -> StatusReply:
    made = writer.start(pulse_id, given.output_file, given.stop_pulse_id, given.force)
    return status_of(made.progress())


def _stop(acquisition: Acquisition, pulse_id: int | None) -> StatusReply:
    acquisition.stop(pulse_id)
    return status_of(acquisition.progress())


def _statistics(acquisition: Acquisition) -> StatisticsReply:
    found = acquisition.progress()
    return StatisticsReply(
        status=found.status, acquisition=found.number, statistics=statistics_of(found)
    )


async def _body(request: Request) -> bytes:
    """The body, whatever its content type says: curl's own is that of a form."""
    found = bytearray()
    async for piece in request.stream():
        found += piece
        if len(found) > _MOST_BYTES:
            raise HTTPException(413, f"the request is longer than {_MOST_BYTES} bytes")
    return bytes(found)


async def _json_object(request: Request) -> dict[str, object]:
    body = await _body(request)
    try:
        given = json.loads(body) if body.strip() else {}
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"the request is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise HTTPException(400, "the request must be a JSON object, like {}")
    return given


async def _start_request(
    given: Annotated[dict[str, Any], Depends(_json_object)],
) -> StartRequest:
    try:
        return StartRequest(**given)
    except ValidationError as error:
        raise HTTPException(400, _explain(list(error.errors()))) from None


def _explain(errors: list[Any]) -> str:
    return "; ".join(
        f"{'.'.join(map(str, item['loc'])) or 'request'}: {item['msg']}" for item in errors
    )


def _add_errors(app: FastAPI, names: Collection[str]) -> None:
    """All errors are JSON, with `state` and `status`; also for hosts that are none of ours."""

    @app.exception_handler(PvapyStreamError)
    async def ours(_: Request, error: PvapyStreamError) -> Response:
        return _failed(_code(error), str(error))

    @app.exception_handler(StarletteError)
    async def http(_: Request, error: StarletteError) -> Response:
        return _failed(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return _failed(400, _explain(list(error.errors())))

    @app.middleware("http")
    async def unforeseen(
        request: Request, call: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        if why := refusal(request.method, request.headers, names):
            return _failed(403, why)
        try:
            return await call(request)
        except Exception as error:
            _log.exception("%s %s", request.method, request.url.path)
            return _failed(500, f"{type(error).__name__}: {error}")


def _code(error: PvapyStreamError) -> int:
    """HTTP status of an error of this package."""
    if isinstance(error, ConflictError):
        return 409
    if isinstance(error, FileError):
        text = str(error).lower()
        if "no space left" in text or "quota" in text:
            return 507
        return 403 if any(words in text for words in _FORBIDDEN) else 400
    if isinstance(error, (RangeError, SettingsError)):
        return 400
    return 502 if isinstance(error, TransportError) else 500


def _failed(code: int, text: str, headers: Any = None) -> Response:
    # Surrogates in what was given cannot be encoded.
    text = text.encode("utf-8", "replace").decode()
    return JSONResponse(ErrorReply(status=text).model_dump(), code, headers)
