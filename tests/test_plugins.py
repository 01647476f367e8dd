from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pvapy_stream.errors import MissingExtraError, ProcessorError
from pvapy_stream.plugins import load_processor_class, require
from pvapy_stream.processors import PassThrough


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_class_comes_from_a_file(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.py", "class Mine:\n    def process(self, o): return 41 + 1\n")
    found = load_processor_class("Mine", file)
    assert found().process(None) == 42


def test_a_class_comes_from_a_module() -> None:
    assert load_processor_class("pvapy_stream.processors.PassThrough") is PassThrough


def test_a_changed_file_gives_the_changed_class_at_once(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.py", "class Mine:\n    def process(self, o): return 1\n")
    first = load_processor_class("Mine", file)
    # Of the same length and the same second: a cached .pyc would not tell the difference.
    write(file, "class Mine:\n    def process(self, o): return 2\n")
    assert (first().process(None), load_processor_class("Mine", file)().process(None)) == (1, 2)


def test_a_class_from_a_file_is_found_in_its_module(tmp_path: Path) -> None:
    found = load_processor_class(
        "Mine", write(tmp_path / "mine.py", "class Mine:\n    def process(self, o): pass\n")
    )
    assert vars(sys.modules[found.__module__])["Mine"] is found


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("x = 1\n", "Mine", "has no class 'Mine'; its classes are: none"),
        ("class A:\n    def process(self, o): pass\nclass B: pass\n", "C", "its classes are: A, B"),
        ("Mine = 3\n", "Mine", "has no class 'Mine'"),
        ("class Mine: pass\n", "Mine", "has no process"),
        ("class Mine\n", "Mine", "fails to load: SyntaxError"),
        ("import no_such_module_at_all\n", "Mine", "fails to load: ModuleNotFoundError"),
        ("1 / 0\n", "Mine", "fails to load: ZeroDivisionError"),
    ],
)
def test_files_that_do_not_serve_are_explained(
    tmp_path: Path, text: str, name: str, message: str
) -> None:
    file = write(tmp_path / "mine.py", text)
    before = set(sys.modules)
    with pytest.raises(ProcessorError, match=message) as caught:
        load_processor_class(name, file)
    assert str(file) in str(caught.value)
    assert "fails to load" not in message or set(sys.modules) - before == set()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProcessorError, match=r"nowhere\.py does not exist"):
        load_processor_class("Mine", tmp_path / "nowhere.py")


def test_a_file_that_is_not_python_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProcessorError, match=r"must end with \.py"):
        load_processor_class("Mine", write(tmp_path / "mine.txt", "class Mine: pass\n"))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("Mine", "has no module"),
        ("no_such_module_at_all.Mine", "fails to import"),
        ("pvapy_stream.processors.Nothing", "has no class 'Nothing'"),
    ],
)
def test_modules_that_do_not_serve_are_explained(path: str, message: str) -> None:
    with pytest.raises(ProcessorError, match=message):
        load_processor_class(path)


def test_a_missing_dependency_names_its_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'pvapy-stream\[images\]'"):
        require("no_such_module_at_all", "images")
    assert require("json", "images").loads("1") == 1
