"""The web form of a template: fill in, check, make the project, schedule it, watch it."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Collection, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from pvapy_stream.errors import PvapyStreamError
from pvapy_stream.launch.programs import EntryPoint
from pvapy_stream.plugins import require
from pvapy_stream.web_security import Guard, bearer_is_right
from pvapy_stream.workflow.model.parameters import Enum
from pvapy_stream.workflow.model.workflow_template import Template
from pvapy_stream.workflow.run.project import Project

_UNKNOWN = "the token is missing or wrong; open the address that was printed at the start"
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline';"
        " img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class FormApp:
    """The state behind the pages of a form.

    Args:
        template: to be filled in.
        project: name that is proposed.
        location: folder the project is made in.
        given: first values of the form, by alias; else the defaults.
    """

    def __init__(
        self,
        template: Template,
        project: str,
        location: Path | None = None,
        given: Mapping[str, str] | None = None,
    ) -> None:
        self.template = template
        self._given = dict(given or {})
        self._proposed = project
        self._location = location
        self._lock = threading.Lock()
        self.project: Project | None = None
        self.scheduler: subprocess.Popen[bytes] | None = None

    def page(self) -> str:
        """The form."""
        jinja2 = require("jinja2", "web")
        source = (files("pvapy_stream.workflow.run") / "pages" / "form.html").read_text()
        environment = jinja2.Environment(autoescape=True)
        return environment.from_string(source).render(
            template=self.template,
            project=self._proposed,
            fields=[self._field(alias) for alias in self.template.fields],
        )

    def _field(self, alias: str) -> tuple[object, ...]:
        field, param = self.template.fields[alias], self.template.param(alias)
        value = self._given.get(alias, field.default)
        choices = tuple(map(str, getattr(param, "choices", ())))
        if isinstance(param, Enum):
            with contextlib.suppress(ValueError):
                # A choice may be given by its number.
                value = param.parse(value)
        return alias, field, param.help if param else "", choices, value

    def check(self, given: dict[str, object]) -> dict[str, object]:
        """What is wrong with values, and which fields are to be shown."""
        given = {name: value for name, value in given.items() if name != "project"}
        values, problems = self.template.parse_values(given)
        try:
            problems = problems or self.template.problems(values)
        except PvapyStreamError as error:
            problems = [str(error)]
        return {"problems": problems, "visible": sorted(self.template.shown(values))}

    def start(self, given: dict[str, Any]) -> dict[str, Any]:
        """Make the project and schedule it, in a process that goes on without us."""
        answer = self.check(given)
        if answer["problems"]:
            return answer
        values, _ = self.template.parse_values({k: v for k, v in given.items() if k != "project"})
        with self._lock:
            if self.scheduler is not None and self.scheduler.poll() is None:
                return {**answer, "problems": ["a project of this form runs already"]}
            try:
                flow = self.template.fill(values)
                name = str(given.get("project") or self._proposed)
                self.project = Project.create(name, flow, self._location)
            except PvapyStreamError as error:
                return {"problems": [str(error)], "visible": answer["visible"]}
            folder = self.project.folder
            with (folder / "scheduler.log").open("wb") as log:
                self.scheduler = subprocess.Popen(
                    EntryPoint.COMMAND.line("project", "schedule", folder),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        return {"problems": [], "visible": answer["visible"]}

    def status(self) -> dict[str, Any]:
        """How the project does."""
        if self.project is None or self.scheduler is None:
            return {"state": "not started", "protocols": [], "ended": True}
        code = self.scheduler.poll()
        rows = [
            {"label": row.label, "state": row.state.value, "error": row.error}
            for row in self.project.protocols()
        ]
        if code is None:
            state = f"Project {self.project.name} runs"
        else:
            how = "has finished" if code == 0 else "has ended with errors"
            state = f"Project {self.project.name} {how}; see {self.project.folder}"
        return {"state": state, "protocols": rows, "ended": code is not None}


def make_app(form: FormApp, token: str, names: Collection[str]) -> object:
    """The web application.

    Args:
        form: what it shows.
        token: what checks and starts need.
        names: by which it may be called, see `web_security.host_names`.

    Raises:
        MissingExtraError: FastAPI is not installed.
    """
    fastapi = require("fastapi", "web")
    responses = require("fastapi.responses", "web")
    app = fastapi.FastAPI(title=form.template.name, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, names=names, headers=_HEADERS)
    body = fastapi.Body()
    page = responses.HTMLResponse

    def with_token(authorization: str = fastapi.Header("")) -> None:
        if not bearer_is_right({"authorization": authorization}, token):
            raise fastapi.HTTPException(401, _UNKNOWN)

    needs_token = [fastapi.Depends(with_token)]

    def index() -> str:
        return form.page()

    def check(given: dict[str, object] = body) -> dict[str, object]:
        return form.check(given)

    def start(given: dict[str, Any] = body) -> dict[str, Any]:
        return form.start(given)

    app.get("/", response_class=page)(index)
    app.post("/check", dependencies=needs_token)(check)
    app.post("/start", dependencies=needs_token)(start)
    app.get("/status")(form.status)
    return app


def serve(app: object, host: str, port: int, stop: threading.Event) -> None:
    """Serve an application of `make_app` until `stop` is set.

    Raises:
        MissingExtraError: uvicorn is not installed.
    """
    uvicorn = require("uvicorn", "web")
    config = uvicorn.Config(app, host=host, port=port, log_level="warning")
    server = uvicorn.Server(config)
    # Signals are ours: the command's.
    thread = threading.Thread(target=server.run, name="form", daemon=True)
    thread.start()
    while thread.is_alive() and not stop.wait(0.2):
        pass
    server.should_exit = True
    deadline = time.monotonic() + 5
    while thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.05)
