"""``pvapy-stream demo --choose``: asks on the terminal what to run, and with which values."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pvapy_stream.cli.project_run import run_project
from pvapy_stream.cli.template import ready
from pvapy_stream.errors import PvapyStreamError, SettingsError
from pvapy_stream.pva.net.environment import LOOPBACK
from pvapy_stream.workflow.model.workflow_template import Template
from pvapy_stream.workflow.run.project import Project

# Demonstrations that are no template, by the words that run them.
_DEMONSTRATIONS = {
    "demo": "Simulated detector, mirror, two consumers, collector and writer.",
    "demo --bsread": "Simulated bsread source, buffer, and a writer of past and coming pulses.",
}


def choose(run_demo: Callable[[bool], int]) -> int:
    """Ask what to run, then run it.

    Args:
        run_demo: runs the demonstration, of bsread pulses if the argument is true.

    Raises:
        PvapyStreamError: there is no answer, or it cannot be run.
    """
    templates = ready()
    _say("What to run:")
    for number, (name, what) in enumerate(_DEMONSTRATIONS.items(), 1):
        _say(f"{number:3}  {name:<24}{what}")
    for number, (name, path) in enumerate(templates.items(), 1 + len(_DEMONSTRATIONS)):
        what, _, _ = Template.read(path).description.partition("\n")
        _say(f"{number:3}  {name:<24}{what}")
    names = [*_DEMONSTRATIONS, *templates]
    name = names[_ask_number("Number", len(names)) - 1]
    if name in _DEMONSTRATIONS:
        return run_demo(name != "demo")
    return _run_template(Template.read(templates[name]))


def _run_template(template: Template) -> int:
    # What it starts stays on this machine.
    os.environ.update(LOOPBACK)
    _say("An empty answer takes the value in brackets; Ctrl-C ends it.")
    given = _ask_values(template)
    words = [f"{alias}={value}" for alias, value in given.items()]
    _say(f"The same without questions: pvapy-stream template {template.name} {shlex.join(words)}")
    values, _ = template.parse_values(given, defaults=True)
    name = f"{template.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    project = Project.create(name, template.fill(values))
    try:
        return run_project(project)
    finally:
        project.close()


def _ask_values(template: Template) -> dict[str, str]:
    """Answers by alias, until the workflow is right with them."""
    given: dict[str, str] = {}
    while True:
        for alias in template.fields:
            values, _ = template.parse_values(given, defaults=True)
            if alias in template.shown(values):
                given[alias] = _ask_value(template, alias, given)
        values, _ = template.parse_values(given, defaults=True)
        problems = template.problems(values)
        if not problems:
            shown = template.shown(values)
            return {alias: value for alias, value in given.items() if alias in shown}
        for problem in problems:
            _say(f"  {problem}")


def _ask_value(template: Template, alias: str, given: dict[str, str]) -> str:
    field = template.fields[alias]
    choices = ", ".join(map(str, getattr(template.param(alias), "choices", ())))
    default = given.get(alias, field.default)
    while True:
        answer = _ask(field.label + (f" ({choices})" if choices else ""), default)
        try:
            field.parse(answer)
        except SettingsError as error:
            _say(f"  {error}")
        else:
            # A file may be given with ~ for the home folder, as in a shell.
            return str(Path(answer).expanduser()) if answer.startswith("~/") else answer


def _ask_number(what: str, last: int) -> int:
    while True:
        answer = _ask(what, "1")
        if answer.isdecimal() and 1 <= int(answer) <= last:
            return int(answer)
        _say(f"  {answer!r} is not a number from 1 to {last}")


def _ask(what: str, default: str) -> str:
    sys.stdout.write(f"{what} [{default}]: ")
    sys.stdout.flush()
    line = sys.stdin.readline()
    if not line:
        raise PvapyStreamError("there is no further answer; nothing was started")
    return line.strip() or default


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
