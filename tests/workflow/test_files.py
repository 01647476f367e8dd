"""Workflow files: round trips, bad input, schema, drawing."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml

from pvapy_stream.errors import SettingsError
from pvapy_stream.workflow import (
    Collector,
    Consumer,
    Mirror,
    Simulator,
    Workflow,
    Writer,
    read_workflow,
    to_json,
    to_yaml,
)
from pvapy_stream.workflow.model.drawing import draw
from pvapy_stream.workflow.model.streaming_stage import Site, Stream
from pvapy_stream.workflow.model.workflow_file import json_schema, parse_workflow
from tests.support import Commands

EXAMPLE = Path(__file__).parents[2] / "examples" / "split_collect_save.yaml"

STEPS = """
protocols:
  - {label: count, class: tests.workflow.protocols:Count, n: 5, comment: five}
  - {label: double, class: tests.workflow.protocols:Double, items: count.items, batch: 2}
  - {label: later, class: tests.workflow.protocols:Count, after: [double]}
"""


def graph(flow: Workflow) -> list[object]:
    return [(n.label, n.kind, n.params, n.after, n.comment) for n in flow.nodes.values()]


@pytest.mark.parametrize("text", [EXAMPLE.read_text(), STEPS])
def test_export_import_export_gives_the_same_graph(text: str) -> None:
    flow = parse_workflow(text)
    assert flow.problems() == []
    from_json = parse_workflow(to_json(flow))
    assert graph(from_json) == graph(flow)
    assert to_json(from_json) == to_json(flow)
    assert graph(parse_workflow(to_yaml(flow))) == graph(flow)


def test_a_workflow_json_with_other_ids_and_names() -> None:
    flow = parse_workflow(
        json.dumps(
            [
                {
                    "object.className": "tests.workflow.protocols:Double",
                    "object.id": "72",
                    "object.label": "double",
                    "object.comment": "twice",
                    "_useQueue": False,
                    "_prerequisites": ["41"],
                    "runName": "night",
                    "runMode": 0,
                    "numberOfThreads": 3,
                    "numberOfMpi": 1,
                    "items": "41.items",
                },
                {
                    "object.className": "tests.workflow.protocols:Count",
                    "object.id": "41",
                    "object.label": "count",
                    "object.comment": "",
                    "n": "7",
                },
            ]
        )
    )
    assert flow.problems() == []
    double = flow.nodes["double"]
    assert double.after == ("count",)
    assert double.params == {
        "run_name": "night", "run_mode": 0, "threads": 3, "items": "count.items"
    }  # fmt: skip
    again = json.loads(to_json(flow))
    assert [entry["object.id"] for entry in again] == ["1", "2"]
    assert again[0]["items"] == "2.items"
    assert again[0]["_prerequisites"] == ["2"]


COUNT = "label: count, class: tests.workflow.protocols:Count"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("protocols: [{label: a, class: Simulater}]", "a: unknown class 'Simulater'; did you mean"),
        ("protocols: [{label: a, class: x.y:Z}]", "module 'x.y' fails to import"),
        ("protocols: [{label: a, class: none.py:Z}]", "none.py does not exist"),
        (
            "protocols: [{label: a, class: tests.workflow.protocols:Cuont}]",
            "has no protocol 'Cuont'; did you mean 'Count'",
        ),
        (
            "protocols: [{label: a, class: Simulator, frame_rat: 5}]",
            "a: Simulator has no parameter 'frame_rat'; did you mean 'frame_rate'?",
        ),
        ("protocols: [{label: a, class: Simulator, n_publish: -1}]", "a: --n-publish: "),
        (f"protocols: [{{{COUNT}, n: -1}}]", "count: Number of items: must be greater than 0"),
        (
            "protocols: [{label: a, class: Mirror, input: b.output},"
            "{label: b, class: Consumer, input: a.output}]",
            "cycle: a needs b needs a",
        ),
        (
            "protocols: [{label: cam, class: Simulator},"
            "{label: m, class: Mirror, input: cm.output}]",
            "m: input points to 'cm.output', but there is no 'cm'; did you mean 'cam'?",
        ),
        (
            "protocols: [{label: cam, class: Simulator},{label: m, class: Mirror, input: cam.out}]",
            "the outputs of cam are: output",
        ),
        (
            f"protocols: [{{{COUNT}}}, {{label: m, class: Mirror, input: count.items}}]",
            "m: input points to 'count.items', a set, and needs a stream",
        ),
        ("protocols: [{label: m, class: Mirror, input: [3]}]", "write it like label.output"),
        ("protocols: [{label: m, class: Consumer}]", "m: needs an input, such as"),
        ("protocols: [{label: m, class: Mirror}]", "m: needs an input, a source, or"),
        (f"protocols: [{{{COUNT}}}, {{{COUNT}}}]", "two protocols have the label 'count'"),
        (f"protocols: [{{{COUNT}, after: cuont}}]", "waits for 'cuont', which does not exist"),
        ("protocols: [{label: a b, class: Simulator}]", "label 'a b' is not possible"),
        ("protocols: []", "has no protocols"),
        ("protocol: []", "a workflow has no 'protocol'; did you mean 'protocols'?"),
        ("protocols: [{class: Simulator}]", "a protocol has no label"),
        ("a: [", "not YAML or JSON"),
        (
            "protocols: [{label: cam, class: Simulator, frame_rate: 5, frame_rate: 50}]",
            "'frame_rate' is given twice, first in line 1; remove one of them",
        ),
        ("name: a\nprotocols: []\nname: b", "'name' is given twice, first in line 1"),
        (
            '[{"object.className": "Simulator", "object.id": 1, "object.id": 2}]',
            "'object.id' is given twice",
        ),
        ("just words", "is not a workflow"),
        ('[{"object.className": "Simulator"}]', "a protocol has no object.id"),
        (
            "protocols: [{label: cam, class: Simulator},"
            "{label: w, class: Consumer, n_consumers: 3, input: cam.output},"
            "{label: d, class: Writer, output: a.h5, input: w.output}]",
            "one writer cannot follow 3 channels; gather them first with a Collector",
        ),
    ],
)
def test_what_is_wrong_is_named(text: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_workflow(text).check()
    assert words in str(caught.value)


def test_check_names_the_file_and_every_problem(tmp_path: Path, commands: Commands) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        "protocols: [{label: m, class: Mirror, input: x.output}, {label: s, class: Simulator,"
        " rate: 1}]"
    )
    done = commands("workflow", "check", path)
    assert done.wait() == 2
    assert done.text.count("error: ") == 2
    assert str(path) in done.text
    missing = commands("workflow", "run", tmp_path / "none.yaml")
    assert missing.wait() == 2
    assert "cannot read workflow" in missing.text


def test_arrows_give_channels_queues_ids_and_offsets() -> None:
    flow = Workflow("x")
    cam = flow.add(Simulator(), "cam")
    mirror = flow.add(Mirror(input=cam["output"], server_queue_size=300), "mirror")
    split = flow.add(Consumer(input=mirror["output"], n_consumers=4), "split")
    each = flow.add(Consumer(input=split["output"], n_consumers=4), "each")
    gather = flow.add(Collector(input=each["output"]), "gather")
    flow.add(Writer(input=gather["output"], output="scan.h5"), "disk")
    assert flow.problems() == []
    streams: dict[str, Stream | None] = {}
    programs = {}
    for node in flow.stages():
        wired = node.make().wire(
            node.label, streams.get(flow.follows(node)), Site("p:", Path("/data"))
        )
        streams[node.label] = wired.output
        programs[node.label] = [dict(spec.settings) for spec in wired.programs]
    assert programs["mirror"][0]["channel_map"] == "(p:mirror,p:cam,pva,300)"
    assert [p["consumer_id"] for p in programs["split"]] == [1, 2, 3, 4]
    assert {p["oid_offset"] for p in programs["split"]} == {4}
    assert {p["distributor_group"] for p in programs["split"]} == {"split"}
    # One for each channel: no distributor, and the ids of the channel.
    assert {p["oid_offset"] for p in programs["each"]} == {4}
    assert programs["each"][2]["input_channel"] == "p:split:*"
    assert "distributor_group" not in programs["each"][0]
    assert programs["gather"][0]["producer_id_list"] == [1, 2, 3, 4]
    assert programs["gather"][0]["collector_cache_size"] == 400
    assert programs["disk"][0]["input_channel"] == "p:gather"
    assert programs["disk"][0]["output"] == "/data/scan.h5"


def test_the_drawing_is_svg_with_all_labels() -> None:
    flow = read_workflow(EXAMPLE)
    root = ET.fromstring(draw(flow))
    words = " ".join(root.itertext())
    assert root.tag.endswith("svg")
    assert all(label in words for label in flow.nodes)
    assert "Consumer × 4" in words  # noqa: RUF001
    assert words.count("queue 100") == 4


def test_the_schema_knows_all_classes_and_parameters() -> None:
    kinds = {
        kind["title"]: kind
        for kind in json_schema()["properties"]["protocols"]["items"]["oneOf"]
        if "title" in kind
    }
    for entry in yaml.safe_load(EXAMPLE.read_text())["protocols"]:
        assert set(entry) <= set(kinds[entry["class"]]["properties"])
    assert kinds["Simulator"]["properties"]["frame_rate"]["minimum"] == 0


def test_the_schema_holds_all_that_it_refers_to() -> None:
    schema = json_schema()
    names = set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(schema, default=str)))
    assert names <= set(schema.get("$defs", ()))
    # A choice that may be missing, numbers with limits, and what is given by itself.
    kinds = {one["title"]: one for one in schema["properties"]["protocols"]["items"]["oneOf"][:-1]}
    assert kinds["Mirror"]["properties"]["input"]["anyOf"][1] == {"type": "null"}
    assert (
        kinds["Simulator"]["properties"]["place"]["description"] == "worker of a cluster to run on"
    )
