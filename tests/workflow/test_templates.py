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
from pvapy_stream.workflow.model.workflow_template import Template
from pvapy_stream.workflow.run.web_form import FormApp
from tests.in_process import call
from tests.support import Commands, Program, wait_until
from tests.web.browser import needs_chromium, overflow, page

COUNT = """Counts items [
  {"object.className": "tests.workflow.protocols:Count", "object.id": "1",
   "object.label": "~Label of the run|count|0|label~", "n": "~Number of items|3|3|n~",
   "milliseconds": %s, "comment": "for %%(BEAMLINE)s: ~Words|a \\"good\\" one|0|words~"}
]"""
SPLIT = "split_collect_save"
SCAN = """Depends [
  {"object.className": "tests.workflow.protocols:Scan", "object.id": "1", "object.label": "scan",
   "mode": "~Mode|1|0|mode~", "points": "~Points|5|3|points~", "seconds": "~Time|2|4|time~",
   "fine": "~Fine|false|2|fine~", "repeat": "~Repeats||3|repeat~"}
]"""


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


def test_fields_without_an_alias_have_the_name_of_their_label() -> None:
    made = Template(
        """[{"object.className": "tests.workflow.protocols:Count", "object.id": "1",
        "object.label": "count", "n": "~Number of items|3|3~",
        "comment": "by ~Who|me|0~ for ~Whom|you|0|whom~"}]"""
    )
    assert list(made.fields) == ["Number of items", "Who", "whom"]
    values, problems = made.parse_values({"Number of items": "5", "Who": "~"}, defaults=True)
    assert problems == []
    assert made.fill(values).nodes["count"].params == {"n": 5, "comment": "by ~ for you"}


@pytest.mark.parametrize("field", ["~Who|me~", "~Who|me|0|who|5~", "~|~"])
def test_what_looks_like_a_field_is_no_text(field: str) -> None:
    with pytest.raises(SettingsError, match=r"is not a field; write ~label\|default\|type~ or"):
        Template(f'[{{"object.className": "Simulator", "object.id": 1, "comment": "a {field}"}}]')


def test_a_pipe_between_folders_of_users_is_no_field() -> None:
    line = "echo ~/a | tee ~/b"
    made = Template(f'[{{"object.className": "Command", "object.id": 1, "command": "{line}"}}]')
    (node,) = made.fill({}).nodes.values()
    assert node.params["command"] == line


def test_servers_of_the_import_can_be_given() -> None:
    made = Template.read(ready()["empiar_import"])
    values, _ = made.parse_values({"api": "http://a/", "files": "ftp://b/"}, defaults=True)
    params = made.fill(values).nodes["movies"].params
    assert (params["api"], params["files"]) == ("http://a/", "ftp://b/")


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
    values, _ = split.parse_values({"frames": "-1"}, defaults=True)
    assert split.problems(values) == [
        "Number of frames: Input should be greater than or equal to 0 (given -1)"
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
    wrong = call("template", SPLIT, "--defaults", "frames=many", "--project", "wrong")
    valueless = call("template", SPLIT, "frames", "--defaults")
    listed = call("template", "--list")
    assert done.wait(80) == 0, done.text
    with h5py.File(tmp_path / "projects" / "night" / "night.h5") as file:
        assert file["entry/data/data"].shape == (60, 16, 16)
    assert wrong.code == 2
    assert "Number of frames: Input should be a valid integer" in wrong.text
    assert not (tmp_path / "projects" / "wrong").exists()
    assert valueless.code == 2
    assert listed.code == 0
    assert SPLIT in listed.text


def test_the_form_checks_and_schedules(tmp_path: Path, commands: Commands) -> None:
    path = tmp_path / "count.json.template"
    path.write_text(COUNT % '"~Pause|0|3|pause~"')
    program = commands("template", path, "--no-browser", "--project", "counted")
    address, token = _address(program)
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=address, timeout=20, headers=headers) as web:
        wait_until(lambda: _answers(web))
        page = web.get("/").text
        assert token not in page
        assert 'value="a \\&#34;good\\&#34; one"' in page
        assert "Number of items" in page
        assert "http" not in page.replace("http-equiv", "")
        given = {"project": "counted", "label": "count", "n": "-2", "pause": "0", "words": "w"}
        answer = web.post("/check", json=given).json()
        assert answer["problems"] == ["count: Number of items: must be greater than 0"]
        assert web.post("/start", json=given).json()["problems"] == answer["problems"]
        assert web.get("/status").json()["state"] == "not started"
        given["n"] = "4"
        # Nothing is started without the token, for other sites, or by a name that is not ours.
        host = address.split("/")[2]
        for wrong, code in (
            ({"Authorization": ""}, 401),
            ({"Authorization": "Bearer guess"}, 401),
            ({"Origin": "http://evil.example"}, 403),
            ({"Origin": "null"}, 403),
            ({"Sec-Fetch-Site": "cross-site"}, 403),
            ({"Host": "evil.example", "Origin": "http://evil.example"}, 403),
        ):
            for path in ("/start", "/check"):
                assert web.post(path, json=given, headers=wrong).status_code == code
        assert web.get("/", headers={"Host": "evil.example"}).status_code == 403
        assert web.get("/start").status_code == 405
        assert web.get("/openapi.json").status_code == 404
        assert "frame-ancestors 'none'" in web.get("/").headers["content-security-policy"]
        assert web.get("/status").json()["state"] == "not started"
        web.headers["Origin"] = f"http://{host}"
        assert web.post("/start", json=given).json()["problems"] == []
        wait_until(lambda: "has finished" in web.get("/status").json()["state"])
    program.signal()
    assert program.wait() == 0, program.text
    project = Project(tmp_path / "projects" / "counted")
    assert [row.state.value for row in project.protocols()] == ["finished"]
    project.close()


def _address(program: Program) -> tuple[str, str]:
    """Address of the form, and its token."""
    found = wait_until(lambda: re.search(r"(http://\S+/)#token=(\S+)", program.text))
    return found[1], found[2]


def _answers(web: httpx.Client) -> bool:
    try:
        return web.get("/status").status_code == 200
    except httpx.HTTPError:
        return False


def test_fields_are_shown_and_checked_where_their_conditions_hold() -> None:
    made = Template(SCAN, "scan")
    form = FormApp(made, "scan")

    def check(**given: object) -> tuple[set[str], list[str]]:
        values = {"mode": "steps", "points": "5", "time": "2", "fine": False, "repeat": ""}
        answer = form.check({**values, **given})
        return set(answer["visible"]), answer["problems"]

    assert check(mode="time") == ({"mode", "time"}, [])
    assert check() == ({"mode", "points", "fine"}, [])
    shown, problems = check(fine=True)
    assert shown == {"mode", "points", "fine", "repeat"}
    assert problems == ["Repeats: is missing; give a value"]
    assert check(fine=True, repeat="2")[1] == []
    # What is hidden may be empty or wrong; what is wrong keeps the others where they are.
    assert check(mode="time", points="", repeat="x") == ({"mode", "time"}, [])
    shown, problems = check(points="many")
    assert shown == {"mode", "points", "fine"}
    assert [problem.partition(":")[0] for problem in problems] == ["Points"]
    assert check(mode="time", time="0")[1] == ["scan: Seconds: must be greater than 0"]


def test_a_choice_may_be_given_by_its_number_and_values_stand_in_the_form() -> None:
    shown = FormApp(Template(SCAN, "scan"), "scan", given={"points": "7", "fine": "true"}).page()
    assert "<option selected>time</option>" in shown
    assert 'value="7"' in shown
    assert "checked" in shown


def test_hidden_fields_need_not_be_given(tmp_path: Path) -> None:
    file = tmp_path / "scan.json.template"
    file.write_text(SCAN)
    done = call("template", file, "mode=time", "time=3", "--project", "timed")
    assert done.code == 0, done.text
    (note,) = (tmp_path / "projects" / "timed").rglob("note.txt")
    assert note.read_text() == "time 5 3.0 False None"


@needs_chromium
def test_a_person_sees_the_fields_that_matter(tmp_path: Path, commands: Commands) -> None:
    file = tmp_path / "scan.json.template"
    file.write_text(SCAN)
    program: Program = commands("template", file, "mode=steps", "--no-browser", "--project", "seen")
    address, token = _address(program)
    with httpx.Client(base_url=address, timeout=20) as web:
        wait_until(lambda: _answers(web))
    with page(viewport={"width": 390, "height": 800}) as shown:
        shown.goto(f"{address}#token={token}")

        def fields() -> list[str]:
            return shown.eval_on_selector_all(
                "[data-field]:not([hidden])", "all => all.map(one => one.dataset.field)"
            )

        def wait_for(*expected: str) -> None:
            wait_until(lambda: fields() == list(expected), what=f"{fields()}")

        wait_for("mode", "points", "fine")
        shown.get_by_label("Fine").check()
        wait_for("mode", "points", "fine", "repeat")
        problems = shown.locator("#problems")
        wait_until(lambda: "Repeats: is missing" in problems.inner_text())
        assert shown.locator("#start").is_disabled()
        # What is wrong and hidden is no hindrance.
        shown.get_by_label("Mode").select_option("time")
        wait_for("mode", "time")
        wait_until(lambda: problems.inner_text() == "")
        shown.get_by_label("Time").fill("4")
        assert overflow(shown) == 0
        wait_until(lambda: shown.locator("#start").is_enabled())
        shown.locator("#start").click()
        wait_until(lambda: "has finished" in shown.locator("#state").inner_text())
        assert shown.problems == []
    (note,) = (tmp_path / "projects" / "seen").rglob("note.txt")
    assert note.read_text() == "time 5 4.0 True None"
