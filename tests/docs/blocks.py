"""The code blocks of our pages, and the command lines in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

_MARKER = re.compile(r"<!-- not run: (\S.*) -->")
_CUT = re.compile(r"[|<>&;]+|\d?>+")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Args:
        where: page and line.
        language: what follows the fence; "" for commands of a shell.
        text: its lines.
        reason: why it is not run; "" if it is.
    """

    where: str
    language: str
    text: str
    reason: str = ""

    @property
    def is_shell(self) -> bool:
        return self.language in ("", "sh", "bash")


def blocks_of(text: str, page: str) -> list[Block]:
    """The blocks of a page.

    Raises:
        AssertionError: a block is indented, not fenced, or a marker is not before a block.
    """
    found: list[Block] = []
    marker = ""
    for token in MarkdownIt("commonmark").parse(text):
        where = f"{page}:{token.map[0] + 1}" if token.map else page
        assert token.type != "code_block", f"{where}: a fence is needed, not an indentation"
        if token.type == "fence":
            found.append(Block(where, token.info.strip(), token.content, marker))
            marker = ""
            continue
        assert not marker, f"{where}: the block that is not run has to follow its marker"
        if token.type == "html_block" and "not run" in token.content:
            made = _MARKER.fullmatch(token.content.strip())
            assert made, f"{where}: a marker is <!-- not run: WHY -->"
            marker = made[1]
    assert not marker, f"{page}: no block follows the last marker"
    return found


def spans_of(text: str) -> Iterator[str]:
    """Code within the lines of a page."""
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        for child in token.children or ():
            if child.type == "code_inline":
                yield child.content


def commands_of(text: str) -> Iterator[list[str]]:
    """The words of each command of a shell, without comments, pipes and redirections."""
    lines = iter(text.replace("\\\n", " ").splitlines())
    for line in lines:
        while True:
            try:
                words = shlex.split(line, comments=True)
                break
            except ValueError:
                # A quotation that goes on in the next line.
                line += "\n" + next(lines)
        cut = next((n for n, word in enumerate(words) if _CUT.fullmatch(word)), len(words))
        words = words[:cut]
        while words and re.match(r"\w+=", words[0]):
            words = words[1:]
        if words:
            yield words
