"""The messages on the page about troubleshooting are those of the programs."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator

import pytest

from tests.docs.blocks import ROOT

PAGE = ROOT / "docs" / "troubleshooting.md"
MESSAGES = re.findall(r"^### `(.*)`$", PAGE.read_text(), re.MULTILINE)


def texts() -> Iterator[str]:
    """Texts in the source; what is put in has a place."""
    for path in (ROOT / "pvapy_stream").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                yield "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "\0"
                    for part in node.values
                )


@functools.cache
def source() -> str:
    """All texts, one a line; seconds, which not every process of the tests is to spend."""
    return "\n".join(text.replace("\n", " ") for text in texts())


def test_the_page_has_messages() -> None:
    headings = re.findall(r"^### .*$", PAGE.read_text(), re.MULTILINE)
    assert len(headings) == len(MESSAGES) > 20


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_is_one_of_the_programs(message: str) -> None:
    parts = [re.escape(part.strip()) for part in message.split("…") if part.strip()]
    assert re.search(r"[^\n]*".join(parts), source()), message
