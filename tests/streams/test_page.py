"""The programs of the page on Python run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import PATIENCE

PAGE = Path(__file__).parents[2] / "docs/python.md"
# The programs after these run a stage.
RECEIVES, RECEIVES_PLAIN, SENDS, SENDS_PLAIN, *_ = re.findall(
    r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL
)


@pytest.mark.parametrize(("sends", "receives"), [(SENDS, RECEIVES), (SENDS_PLAIN, RECEIVES_PLAIN)])
def test_the_programs_of_the_page_run(prefix: str, sends: str, receives: str) -> None:
    programs = [
        subprocess.Popen(
            [
                sys.executable,
                "-W",
                "error",
                "-u",
                "-c",
                code.replace("det:image", f"{prefix}image"),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        for code in (receives, sends)
    ]
    sink = programs[0]
    try:
        assert sink.stdout is not None
        lines = [sink.stdout.readline().split() for _ in range(3)]
        first = int(lines[0][0])
        assert [int(number) for number, _ in lines] == [first, first + 1, first + 2]
        assert all(2.5 < float(mean) < 3.5 for _, mean in lines)
    finally:
        for one in programs:
            one.kill()
            one.communicate(timeout=PATIENCE)
