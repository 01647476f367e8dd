"""The runner of the pages sees what is wrong in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.blocks import Block, blocks_of, commands_of, spans_of
from tests.docs.programs import check, check_span
from tests.docs.test_pages import look_at


def test_blocks_have_languages_and_reasons() -> None:
    text = (
        "# A\n\n<!-- not run: takes long -->\n```\nmake demo\n```\n- b\n\n  ```python\n  1\n  ```\n"
    )
    assert blocks_of(text, "a.md") == [
        Block("a.md:4", "", "make demo\n", "takes long"),
        Block("a.md:9", "python", "1\n"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n\n    make demo\n", "a.md:3: a fence is needed"),
        ("<!-- not run: why -->\n\nText.\n", "has to follow its marker"),
        ("<!-- not run -->\n```\na\n```\n", "a marker is <!-- not run: WHY -->"),
        ("<!-- not run: why -->\n", "no block follows the last marker"),
    ],
)
def test_wrong_blocks(text: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        blocks_of(text, "a.md")


def test_commands_have_no_comments_pipes_and_variables() -> None:
    text = "N=3 a.sh 'x y' \\\n  z  # why\n# all\nb -c '{\n}' > c.svg\nc | d\n"
    assert list(commands_of(text)) == [["a.sh", "x y", "z"], ["b", "-c", "{\n}"], ["c"]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("pvapy-stream write -o a.h5", "no command write"),
        ("pvapy-stream consumer -ic a --n-cnsumers 2", "did you mean '--n-consumers'"),
        ("pvapy-hpc-consumer -ic a -nc two", "invalid int value"),
        ("pvapy-stream consumer … --no-such", "no option --no-such"),
        ("pvapy-stream workflow walk a.yaml", "invalid choice: 'walk'"),
        ("make coffee", "no target coffee"),
        ("python -m chaos --rnus 3", "unrecognized arguments"),
        ("examples/chains/none.sh", "there is no examples/chains/none.sh"),
        ("cat scan.h5", "cat is no program of ours"),
    ],
)
def test_wrong_commands(line: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=message):
        look_at(Block("a.md:1", "", line, "why"), tmp_path)


@pytest.mark.parametrize(
    "block",
    [
        Block("", "", "pvapy-stream audit none.json"),
        Block("", "python", "import pvapy_stream\npvapy_stream.none"),
        Block("", "python", "from pvapy_stream import none", "why"),
        Block("", "yaml", "protocols: [{label: a, class: Mirror, input: b.output}]"),
        Block("", "text", "pvapy-stream demo"),
        Block("", "fortran", "END"),
    ],
    ids=lambda block: block.text,
)
def test_what_fails_is_seen(block: Block, tmp_path: Path) -> None:
    with pytest.raises((AssertionError, ImportError)):
        look_at(block, tmp_path)


def test_every_command_on_a_line_is_parsed() -> None:
    check(["pvapy-stream", "verify", "a.h5", "--repair"])
    assert list(spans_of("Run `pvapy-stream top`:\n\n| a |\n|---|\n| `b -c` |\n")) == [
        "pvapy-stream top",
        "b -c",
    ]
    check_span("pvapy-stream consumer|mirror")
    with pytest.raises(AssertionError, match="no command write"):
        check_span("pvapy-stream write|verify")
    with pytest.raises(AssertionError, match="no option --mend"):
        check_span("pvapy-stream verify --mend")
