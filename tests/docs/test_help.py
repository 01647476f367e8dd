"""The examples at the end of each command's help are command lines of today."""

from __future__ import annotations

import re

import pytest

from pvapy_stream.cli import main as cli
from pvapy_stream.cli.parser import parsers_of
from tests.docs.blocks import commands_of
from tests.docs.programs import check

_EXAMPLES = re.compile(r"^examples:\n((?:  .*\n)+)", re.MULTILINE)


@pytest.mark.parametrize("name", cli.commands())
def test_examples_of_help(name: str) -> None:
    wrong: list[str] = []
    for parser in parsers_of(cli.load(name).COMMAND.parser()):
        for found in _EXAMPLES.finditer(f"{parser.epilog or ''}\n"):
            for words in commands_of(found[1]):
                try:
                    check(words)
                except AssertionError as error:
                    wrong.append(str(error))
    assert not wrong, "\n".join(wrong)
