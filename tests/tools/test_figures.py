"""The figures of the code, and the goals that are reached and have to stay so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import figures
from tools.figures import BEGIN, END, EXAMPLES, Figure, files_changed, main, table, write

PAGE = figures.ROOT / "docs" / "architecture.md"
ROWS = [
    Figure("lines", 1200, 1000, details=("a.py", "b.py")),
    Figure("tests", 0.8, 0.7, least=True),
    Figure("circles", 0, 0),
]


def test_a_row_says_whether_its_goal_is_reached() -> None:
    assert table(ROWS).splitlines()[2:] == [
        "| lines | 1,200 | ≤ 1,000 | no |",
        "| tests | 0.8 | ≥ 0.7 | yes |",
        "| circles | 0 | 0 | yes |",
    ]


def test_missed_goals_are_an_error_only_when_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(figures, "figures", lambda: iter(ROWS))
    assert main([]) == 0
    assert "a.py" not in capsys.readouterr().out
    assert main(["--check", "--details"]) == 1
    said = capsys.readouterr()
    assert said.err == "goals missed: lines\n"
    assert "\nlines:\n  a.py\n  b.py\n" in said.out


def test_the_table_is_put_between_its_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"a\n{BEGIN}\nold\n{END}\nb\n")
    write(page, "new")
    assert page.read_text() == f"a\n{BEGIN}\n\nnew\n\n{END}\nb\n"
    page.write_text("a\n")
    with pytest.raises(ValueError, match="has no place for the table"):
        write(page, "new")


def test_the_page_has_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    # The names of rows are the same, whatever is counted.
    monkeypatch.setattr(figures, "sources", lambda: ())
    shown = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    missing = [row.what for row in figures.figures() if f"| {row.what} | " not in shown]
    assert missing == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.kind)
def test_examples_are_there(example: figures.Example) -> None:
    assert all((figures.PACKAGE / file).is_file() for file in (*example.files, *example.ignored))


@pytest.mark.parametrize("kind", ["transport", "command", "processor"])
def test_an_addition_is_one_file(kind: str) -> None:
    (example,) = (one for one in EXAMPLES if one.kind.startswith(kind))
    assert len(files_changed(example)) == 1


def test_circles_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "rings"
    for folder in ("a", "b"):
        (package / folder).mkdir(parents=True)
        (package / folder / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "a" / "one.py").write_text("import rings.b.two\n")
    (package / "b" / "two.py").write_text("")
    monkeypatch.setattr(figures, "PACKAGE", package)
    monkeypatch.syspath_prepend(tmp_path)
    assert figures.circles() == ()
    (package / "b" / "two.py").write_text("from rings import a\n")
    (circle,) = figures.circles()
    assert {"rings.a", "rings.b"} == set(circle.split(" < "))
