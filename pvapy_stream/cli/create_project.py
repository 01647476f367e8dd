"""``pvapy-stream create-project``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pvapy_stream.cli.options import plain_parser
from pvapy_stream.errors import PvapyStreamError, SettingsError

_NAMES = ("name", "workflow", "location", "comment")


def parser() -> argparse.ArgumentParser:
    """The command's parser."""
    made = plain_parser(
        "pvapy-stream create-project",
        "Make a project, with the protocols of a workflow file.",
        "NAME WORKFLOW LOCATION COMMENT in this order, or name=… workflow=… location=… comment=…\n"
        "Without a location it goes to PVAPY_STREAM_PROJECTS (~/pvapy_stream/projects).\n"
        "exit codes: 0 made; 1 the name is taken, or the file is missing or wrong",
    )
    made.add_argument("words", nargs="+", metavar="NAME [WORKFLOW] [LOCATION] [COMMENT]")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = parser().parse_args(argv)
    try:
        return run(named_words(options.words, _NAMES))
    except PvapyStreamError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


def named_words(words: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Words by name: ``name=…``, or by their place.

    Raises:
        SettingsError: there are too many, or a name comes twice.
    """
    found: dict[str, str] = {}
    places = iter(names)
    for word in words:
        name, equals, value = word.partition("=")
        if equals and name in names:
            if name in found:
                raise SettingsError(f"{name} is given twice")
            found[name] = value
            continue
        place = next((p for p in places if p not in found), None)
        if place is None:
            raise SettingsError(f"{word!r} is one word too many; give {', '.join(names)}")
        found[place] = word
    return found


def run(given: dict[str, str]) -> int:
    """Make the project.

    Raises:
        PvapyStreamError: it exists, or the workflow is missing or wrong.
    """
    from pvapy_stream.workflow.model.workflow_file import read_workflow
    from pvapy_stream.workflow.run.project import Project

    if "name" not in given:
        raise SettingsError("a project needs a name")
    flow = read_workflow(given["workflow"]) if given.get("workflow") else None
    location = Path(given["location"]) if given.get("location") else None
    project = Project.create(given["name"], flow, location, given.get("comment", ""))
    sys.stdout.write(f"{project.folder}: {len(project.protocols())} protocols\n")
    project.close()
    return 0
