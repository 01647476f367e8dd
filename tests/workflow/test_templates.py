"""Templates: fields, unattended runs, the web form."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import h5py
import httpx
import pytest

from pvapy_stream.cli.template import ready
from pvapy_stream.errors import SettingsError
from pvapy_stream.workflow import Project
from pvapy_stream.workflow.template import Template
from tests.support import Commands, wait_until

COUNT = """Counts items [
  {"object.className": "tests.workflow.protocols:Count", "object.id": "1",
   "object.label": "~Label of the run|count|0|label~", "n": "~Number of items|3|3|n~",
   "milliseconds": %s, "comment": "for %%(BEAMLINE)s: ~Words|a \\"good\\" one|0|words~"}
]"""
SPLIT = "split_collect_save"


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVAPY_STREAM_PROJECTS", str(tmp_path / "projects"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("BEAMLINE", "9-ID")


def template(milliseconds: str = "0") -> Template:
    return Template(COUNT % milliseconds, "count")


def test_fields_defaults_and_the_environment() -> None:
    made = template('"~Pause|5|3|pause~"')
    assert made.description == "Counts items"
    assert list(made.fields) == ["label", "n", "pause", "words"]
    values, problems = made.parse_values({"n": "7", "words": 'x"y'}, defaults=True)
    assert problems == []
    flow = made.fill(values)
    assert flow.nodes["count"].params == {
        "n": 7, "milliseconds": 5, "comment": 'for 9-ID: x"y'
    }  # fmt: skip
    assert flow.problems() == []


def test_wrong_values_and_wrong_fields_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _, problems = template().parse_values({"n": "many", "m": "1"})
    assert problems == [
        "there is no field 'm'; aliases are label, n, words",
        "Label of the run: give label=…, or --defaults",
        "Number of items: Input should be a valid integer, unable to parse string as an integer"
        " (given 'many')",
        "Words: give words=…, or --defaults",
    ]
    split = Template.read(ready()[SPLIT])
    values, _ = split.parse_values({"rate": "-1"}, defaults=True)
    assert split.problems(values) == [
        "Frames per second: Input should be greater than or equal to 0 (given -1.0)"
    ]
    with pytest.raises(SettingsError, match="'Pause' has the unknown type '7'; types are 0 string"):
        template('"~Pause|5|7|pause~"')
    with pytest.raises(SettingsError, match="two fields have the alias 'n'"):
        template('"~Pause|5|3|n~"')
    with pytest.raises(SettingsError, match="no workflow"):
        Template("only words")
    with pytest.raises(SettingsError, match="has no parameter 'frames'"):
        Template('[{"object.className": "Simulator", "object.id": 1, "frames": 2}]')
    monkeypatch.delenv("BEAMLINE")
    with pytest.raises(SettingsError, match="no BEAMLINE"):
        template()


@pytest.mark.parametrize(
    ("default", "code", "kind", "warns"),
    [
        ("true", "2", "boolean", False), ("/data", "1", "path", False), ("0", "1", "boolean", True),
        ("/data", "2", "path", True), ("text", "0", "string", False), ("1", "3", "integer", False),
    ],
)  # fmt: skip
def test_types_1_and_2_are_told_by_their_defaults(
    default: str, code: str, kind: str, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        made = template(f'"~Pause|{default}|{code}|pause~"')
    assert made.fields["pause"].kind == kind
    assert bool(caplog.records) == warns


@pytest.mark.parametrize("name", list(ready()))
def test_ready_templates_make_workflows(name: str) -> None:
    made = Template.read(ready()[name])
    values, problems = made.parse_values({}, defaults=True)
    assert problems == []
    assert made.description
    # Files and folders of the user are not there yet.
    left = [p for p in made.fill(values).problems() if "does not exist" not in p]
    assert left == []


def test_all_aliases_run_without_a_form(tmp_path: Path, commands: Commands) -> None:
    done = commands(
        "template", SPLIT, "frames=60", "rate=200", "columns=16", "rows=16", "consumers=2",
        "processor=pvapy_stream.processors.transpose.Transpose", "file=night.h5",
        "compression=none", "--project", "night",
    )  # fmt: skip
    assert done.wait(80) == 0, done.text
    with h5py.File(tmp_path / "projects" / "night" / "night.h5") as file:
        assert file["entry/data/data"].shape == (60, 16, 16)
    wrong = commands("template", SPLIT, "--defaults", "frames=many", "--project", "wrong")
    assert wrong.wait() == 2
    assert "Number of frames: Input should be a valid integer" in wrong.text
    assert not (tmp_path / "projects" / "wrong").exists()
    assert commands("template", SPLIT, "frames", "--defaults").wait() == 2
    listed = commands("template", "--list")
    assert listed.wait() == 0
    assert SPLIT in listed.text


def test_the_form_checks_and_schedules(tmp_path: Path, commands: Commands) -> None:
    path = tmp_path / "count.json.template"
    path.write_text(COUNT % '"~Pause|0|3|pause~"')
    program = commands("template", path, "--no-browser", "--project", "counted")
    address = wait_until(lambda: re.search(r"http://\S+/", program.text), 20)[0]
    with httpx.Client(base_url=address, timeout=20) as web:
        wait_until(lambda: _answers(web))
        page = web.get("/").text
        assert 'value="a \\&#34;good\\&#34; one"' in page
        assert "Number of items" in page
        assert "http" not in page.replace("http-equiv", "")
        given = {"project": "counted", "label": "count", "n": "-2", "pause": "0", "words": "w"}
        answer = web.post("/check", json=given).json()
        assert answer["problems"] == ["count: Number of items: must be greater than 0"]
        assert web.post("/start", json=given).json()["problems"] == answer["problems"]
        assert web.get("/status").json()["state"] == "not started"
        given["n"] = "4"
        assert web.post("/start", json=given).json()["problems"] == []
        wait_until(lambda: "has finished" in web.get("/status").json()["state"], 30)
    program.signal()
    assert program.wait() == 0, program.text
    project = Project(tmp_path / "projects" / "counted")
    assert [row.state.value for row in project.protocols()] == ["finished"]
    project.close()


def _answers(web: httpx.Client) -> bool:
    try:
        return web.get("/status").status_code == 200
    except httpx.HTTPError:
        return False
