"""Protocols that other packages bring, found by their entry points."""

from __future__ import annotations

from pathlib import Path

import pytest

from pvapy_stream.workflow import Workflow
from pvapy_stream.workflow.library.folder_import import FolderImport
from pvapy_stream.workflow.model.workflow_file import parse_workflow
from tests.installed import call_with
from tests.support import Commands

PROTOCOL = '''"""A protocol."""
from pvapy_stream.workflow import Form, Int, Protocol


class Greeting(Protocol):
    """Greets."""

    def define_params(self, form: Form) -> None:
        form.add("times", Int(1))

    def insert_all_steps(self) -> None:
        self.insert_step(self.greet)

    def greet(self) -> str:
        path = self.extra("greeting.txt")
        path.write_text("hello " * self.times)
        return str(path)
'''
ENTRIES = """[pvapy_stream.protocols]
Greeting = greetings:Greeting
Broken = greetings_broken:Broken
Number = greetings:__name__
FolderImport = greetings:Greeting
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package as an installer leaves it."""
    folder = tmp_path / "site"
    info = folder / "greetings-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "greetings.py").write_text(PROTOCOL)
    (folder / "greetings_broken.py").write_text("import a_module_that_is_missing\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: greetings\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRIES)
    ours = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{ours}:{folder}")
    return tmp_path


def flow(folder: Path, *classes: str, file: str = "flow.yaml") -> Path:
    path = folder / file
    entries = "".join(f"  - {{label: a{n}, class: {one}}}\n" for n, one in enumerate(classes))
    path.write_text(f"protocols:\n{entries}")
    return path


def test_a_protocol_of_another_package_runs_by_its_name(plugin: Path, commands: Commands) -> None:
    file = flow(plugin, "Greeting, times: 2")
    done = commands("workflow", "run", file, "--folder", plugin / "run")
    assert done.wait() == 0, done.text
    (greeting,) = (plugin / "run").rglob("greeting.txt")
    assert greeting.read_text() == "hello hello "


def test_plugins_that_are_wrong_are_named_and_the_others_work(plugin: Path) -> None:
    def check(name: str) -> tuple[object, ...]:
        return "workflow", "check", flow(plugin, name, file=f"{name}.yaml")

    called = call_with(
        plugin / "site",
        {name: check(name) for name in ("Broken", "Number", "Greetings")}
        | {"schema": ("workflow", "schema")},
    )
    broken = called["Broken"]
    assert broken.code == 2
    assert "class 'Broken' of the package greetings cannot be loaded" in broken.text
    assert "a_module_that_is_missing" in broken.text
    number = called["Number"]
    assert number.code == 2
    assert "is not a protocol or stage" in number.text
    near = called["Greetings"]
    assert near.code == 2
    assert "did you mean 'Greeting'?" in near.text
    schema = called["schema"]
    assert schema.code == 0
    assert '"title": "Greeting"' in schema.text


def test_our_own_plugin_is_found_and_keeps_its_name() -> None:
    (node,) = parse_workflow("protocols: [{label: a, class: EmpiarImport}]").nodes.values()
    assert node.kind.__module__ == "pvapy_stream.empiar.entry_import"
    assert Workflow().add(node.kind(), "a").class_name == "EmpiarImport"
    # A plugin does not take the place of what the package brings.
    assert Workflow().add(FolderImport(), "a").class_name == "FolderImport"
