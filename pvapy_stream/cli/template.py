"""``template`` (workflow): fill in a template of a workflow, in a form, and run it."""

from __future__ import annotations

import argparse
import secrets
import socket
import sys
import threading
import time
import webbrowser
from importlib.resources import files
from pathlib import Path

from pvapy_stream.cli.command import CliCommand
from pvapy_stream.cli.project_run import add_cluster_option, run_project
from pvapy_stream.errors import SettingsError
from pvapy_stream.logs import configure_logging
from pvapy_stream.settings import LoggingSettings
from pvapy_stream.signals import run_until_signal
from pvapy_stream.web_security import host_names
from pvapy_stream.workflow.model.workflow_template import Template
from pvapy_stream.workflow.run.project import Project

_EPILOG = """\
examples:
  pvapy-stream template detector_to_disk
  pvapy-stream template my.json.template frames=1000 rate=50 folder=/data
  pvapy-stream template detector_to_disk --defaults --project night_1
With all fields given as alias=value, or with --defaults, it runs at once; otherwise a form opens
in the browser. exit codes: 0 all well; 1 a protocol failed, or frames were lost; 2 wrong values
"""


def add_arguments(made: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    made.add_argument("file", nargs="?", help="*.json.template, or the name of a built-in one")
    made.add_argument("values", nargs="*", metavar="ALIAS=VALUE", help="of a field")
    made.add_argument("--list", action="store_true", help="list the built-in templates")
    made.add_argument(
        "--defaults", action="store_true", help="use the defaults of fields that are not given"
    )
    made.add_argument("--project", metavar="NAME", help="name of the project [default NAME-TIME]")
    made.add_argument("--location", metavar="DIR", type=Path, help="folder to make it in")
    made.add_argument(
        "--host", default="127.0.0.1", help="the form is served here [default 127.0.0.1]"
    )
    made.add_argument(
        "--port", type=int, default=0, help="port of the form; 0: a free one [default 0]"
    )
    made.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="further host name that requests may use, such as that of a proxy",
    )
    made.add_argument("--no-browser", action="store_true", help="only print the form's address")
    add_cluster_option(made)


def ready() -> dict[str, Path]:
    """Templates that come with the package, by name."""
    folder = Path(str(files("pvapy_stream.workflow.library") / "templates"))
    return {path.name.partition(".")[0]: path for path in sorted(folder.glob("*.template"))}


def run(options: argparse.Namespace) -> int:
    """Fill in the template, from the words given or from the form, and run it.

    Raises:
        PvapyStreamError: the template or a value is wrong.
    """
    configure_logging(LoggingSettings.of())
    if options.list:
        for name in ready():
            sys.stdout.write(f"{name:<28}{Template.read(ready()[name]).description}\n")
        return 0
    if not options.file:
        raise SettingsError("give a template; --list prints the built-in ones")
    template = Template.read(ready().get(options.file, Path(options.file)))
    given: dict[str, str] = {}
    for word in options.values:
        alias, equals, value = word.partition("=")
        if not equals:
            raise SettingsError(f"{word!r} is not a value of a field; write it as alias=value")
        given[alias] = value
    name = options.project or f"{template.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    values, problems = template.parse_values(given, defaults=True)
    complete = options.defaults or template.shown(values) <= given.keys()
    if problems:
        raise SettingsError("; ".join(problems))
    if not complete:
        return _serve(template, name, given, options)
    flow = template.fill(values)
    try:
        project = Project.create(name, flow, options.location)
    except SettingsError as error:
        raise SettingsError(template.by_labels(str(error), flow)) from error
    try:
        return run_project(project, options.cluster)
    finally:
        project.close()


def _serve(
    template: Template, name: str, given: dict[str, str], options: argparse.Namespace
) -> int:
    from pvapy_stream.workflow.run.web_form import FormApp, make_app, serve

    token = secrets.token_urlsafe(16)
    names = host_names(options.host, options.allow_host)
    app = make_app(FormApp(template, name, options.location, given), token, names)
    port = options.port or _free_port(options.host)
    address = f"http://{options.host}:{port}/#token={token}"
    sys.stdout.write(f"The form of {template.name} is at {address}  (Ctrl-C ends it)\n")
    sys.stdout.flush()
    if not options.no_browser:
        opener = threading.Timer(1.0, webbrowser.open, [address])
        opener.daemon = True
        opener.start()
    run_until_signal(lambda stop: serve(app, options.host, port, stop))
    return 0


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


COMMAND = CliCommand(
    "pvapy-stream template",
    "Fill in a template of a workflow, and run it.",
    run,
    _EPILOG,
    add_arguments=add_arguments,
    intermixed=True,
)
main = COMMAND.main
