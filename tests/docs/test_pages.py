"""What README and docs show is run, or parsed with a reason why it is not run."""

from __future__ import annotations

import ast
import configparser
import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import pvapy_stream
from pvapy_stream.errors import PvapyStreamError
from pvapy_stream.workflow.model.workflow_file import read_workflow
from tests.docs.blocks import PAGES, ROOT, Block, blocks_of, commands_of, spans_of
from tests.docs.programs import check, check_span, tomllib
from tests.support import TOOLS

_TIME = 60  # s; of one block
# Blocks that begin so are files, for the blocks after them.
_FILE = re.compile(r"# (\w+\.(?:py|yaml))\n")
# Commands of the first hour of a newcomer, which tests/tools/test_first_hour.py runs.
_FIRST_HOUR = re.findall(
    r'^expect 0 "[^"]*" (.*)', (ROOT / "tools" / "first_hour.sh").read_text(), re.MULTILINE
)
_EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the blocks of a page are run, one after another: it looks like the checkout."""
    for one in ("pvapy_stream", "examples"):
        (tmp_path / one).symlink_to(ROOT / one)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


def run(block: Block, folder: Path) -> None:
    """Run a block.

    Raises:
        AssertionError: it fails.
    """
    words = ["bash", "-ec"] if block.is_shell else [sys.executable, "-c"]
    environment = {
        **os.environ,
        "PATH": f"{TOOLS}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PVAPY_STREAM_PROJECTS": str(folder / "projects"),
    }
    with subprocess.Popen(
        [*words, block.text], cwd=folder, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as program:  # fmt: skip
        try:
            said, _ = program.communicate(timeout=_TIME)
        finally:
            # What a block that failed has left in the background.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
    assert program.returncode == 0, said


def look_at(block: Block, folder: Path) -> None:
    """Run or parse a block.

    Raises:
        AssertionError: it fails, or nobody knows what it is.
    """
    if file := _FILE.match(block.text):
        (folder / file[1]).write_text(block.text)
    if block.is_shell:
        commands = list(commands_of(block.text))
        for words in commands:
            check(words)
        elsewhere = commands and all(shlex.join(words) in _FIRST_HOUR for words in commands)
        if not block.reason and not elsewhere:
            run(block, folder)
    elif block.language == "python":
        if block.reason:
            # What it imports has to be there all the same.
            tree = ast.parse(block.text)
            kept = [one for one in tree.body if isinstance(one, ast.Import | ast.ImportFrom)]
            exec(compile(ast.Module(kept, []), block.where, "exec"), {})
        elif not file or not file[1].endswith(".py"):
            run(block, folder)
    elif block.language == "yaml":
        look_at_yaml(block, folder)
    elif block.language == "toml":
        tomllib.loads(block.text)
    elif block.language == "ini":
        configparser.ConfigParser(strict=False).read_string(block.text)
    elif block.language == "text":
        for line in block.text.splitlines():
            assert not line.startswith(("pvapy-", "sf_", "make ")), "commands are no text"
    else:
        # Sphinx runs its directives, with warnings as errors: make docs.
        assert block.language.startswith("{"), f"what is a block of {block.language}?"


def look_at_yaml(block: Block, folder: Path) -> None:
    """Read YAML; check what is a workflow.

    Raises:
        AssertionError: it is wrong.
    """
    found = yaml.safe_load(block.text)
    assert found
    if "protocols" in found and not block.reason:
        file = folder / "page.yaml"
        file.write_text(block.text)
        assert read_workflow(file).problems() == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks(page: Path, folder: Path) -> None:
    wrong: list[str] = []
    for block in blocks_of(page.read_text(), name(page)):
        try:
            look_at(block, folder)
        except (AssertionError, PvapyStreamError, SyntaxError, ImportError) as error:
            wrong.append(f"{block.where}: {error}")
        except subprocess.TimeoutExpired:
            wrong.append(f"{block.where}: does not end within {_TIME} s")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_within_lines(page: Path) -> None:
    wrong: list[str] = []
    for text in spans_of(page.read_text()):
        try:
            check_span(text)
        except AssertionError as error:
            wrong.append(f"`{text}`: {error}")
    assert not wrong, "\n".join(wrong)


def python_texts() -> list[tuple[str, str]]:
    """The Python that pages and examples show: where, and the text."""
    shown = [(name(path), path.read_text()) for path in _EXAMPLES]
    for page in PAGES:
        shown += [
            (block.where, block.text)
            for block in blocks_of(page.read_text(), name(page))
            if block.language == "python"
        ]
    return shown


def test_pages_and_examples_import_what_is_public() -> None:
    public = {"pvapy_stream", *(f"pvapy_stream.{one}" for one in pvapy_stream.PUBLIC_MODULES)}
    seen = 0
    for where, text in python_texts():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom):
                modules = {node.module or ""}
            elif isinstance(node, ast.Import):
                modules = {alias.name for alias in node.names}
            else:
                continue
            ours = {one for one in modules if one.split(".")[0] == "pvapy_stream"}
            seen += len(ours)
            assert ours <= public, f"{where} imports {min(ours - public)}, which is not public"
    assert seen > 10


def test_the_page_of_the_api_has_all_names() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    described = set(re.findall(r"^\.\. auto(?:class|function):: (\w+)", page, re.M))
    modules = set(re.findall(r"^\.\. automodule:: pvapy_stream\.(\w+)", page, re.M))
    names = {one for one in pvapy_stream.__all__ if one != "__version__"}
    # Processors have a page of their own, settings are in the list.
    assert names - described == {"PvapyStreamError"}, "errors are there as a module"
    assert described <= names
    assert modules == {*pvapy_stream.PUBLIC_MODULES} - {"processors", "settings"}
