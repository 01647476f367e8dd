"""Workflows in files: YAML for people, and workflow.json, a list of protocols."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from pvapy_stream.errors import SettingsError
from pvapy_stream.workflow.model.graph import Workflow
from pvapy_stream.workflow.model.node import Node
from pvapy_stream.workflow.model.parameters import Form, MultiPointer
from pvapy_stream.workflow.model.protocol_classes import Kind, registered
from pvapy_stream.workflow.model.spelling import nearest
from pvapy_stream.workflow.model.streaming_stage import StreamingStage
from pvapy_stream.workflow.model.unique_keys import load_yaml

_TOP = ("name", "description", "channels", "protocols")
_NODE = ("label", "class", "after", "comment")
# Names in workflow.json, and ours.
_JSON_NAMES = {
    "runName": "run_name",
    "runMode": "run_mode",
    "numberOfThreads": "threads",
    "numberOfMpi": "workers",
}
# Parts of the schema: text, and what all protocols have.
_TEXT = {"type": "string"}
_COMMON = {
    "label": {**_TEXT, "description": "unique name of the protocol"},
    "after": {"type": "array", "items": _TEXT},
    "comment": _TEXT,
}


def read_workflow(path: Path | str) -> Workflow:
    """Read a workflow from YAML or JSON.

    Raises:
        SettingsError: the file is missing or wrong; the message has the place.
    """
    path = Path(path)
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read workflow {path}: {error}") from error
    try:
        return parse_workflow(text, path.name.partition(".")[0], path.parent)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error


def parse_workflow(text: str, name: str = "", sources: Path | None = None) -> Workflow:
    """A workflow from the text of a file.

    Raises:
        SettingsError: it is neither YAML nor JSON of a workflow.
    """
    try:
        content = load_yaml(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"not YAML or JSON: {' '.join(str(error).split())}") from error
    flow = Workflow(name, sources=sources)
    if isinstance(content, list):
        _from_json(content, flow)
    elif isinstance(content, dict):
        _from_yaml(content, flow)
    else:
        raise SettingsError("is not a workflow: a list of protocols, or a mapping with protocols")
    return flow


# -- YAML ----------------------------------------------------------------------------------------


def _from_yaml(content: dict[str, Any], flow: Workflow) -> None:
    _known(content, _TOP, "a workflow")
    flow.name = str(content.get("name") or flow.name)
    flow.description = str(content.get("description") or "")
    flow.channels = str(content.get("channels") or "")
    for entry in _mappings(content.get("protocols")):
        for key in ("label", "class"):
            if not isinstance(entry.get(key), str):
                raise SettingsError(f"a protocol has no {key}: {entry}")
        after = entry.get("after") or []
        flow.add_node(
            Node(
                entry["label"],
                entry["class"],
                _find(flow, entry["label"], entry["class"]),
                {k: v for k, v in entry.items() if k not in _NODE},
                tuple([after] if isinstance(after, str) else after),
                str(entry.get("comment") or ""),
            )
        )


def to_yaml(flow: Workflow) -> str:
    """The workflow as YAML."""
    content: dict[str, Any] = {"name": flow.name}
    for name in ("description", "channels"):
        if getattr(flow, name):
            content[name] = getattr(flow, name)
    content["protocols"] = [
        {
            "label": node.label,
            "class": node.class_name,
            **({"after": list(node.after)} if node.after else {}),
            **({"comment": node.comment} if node.comment else {}),
            **msgspec.to_builtins(node.params, enc_hook=str),
        }
        for node in flow.nodes.values()
    ]
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)


# -- JSON ----------------------------------------------------------------------------------------


def _from_json(content: list[Any], flow: Workflow) -> None:
    entries = _mappings(content)
    labels: dict[str, str] = {}
    for entry in entries:
        for key in ("object.className", "object.id"):
            if key not in entry:
                raise SettingsError(f"a protocol has no {key}: {entry}")
        number = str(entry["object.id"])
        if number in labels:
            raise SettingsError(f"two protocols have the object.id {number}")
        labels[number] = str(entry.get("object.label") or f"{entry['object.className']}-{number}")
    for entry in entries:
        label = labels[str(entry["object.id"])]
        class_name = str(entry["object.className"])
        kind = _find(flow, label, class_name)
        flow.add_node(
            Node(
                label,
                class_name,
                kind,
                _json_params(entry, kind.form(), labels),
                tuple(labels.get(one, one) for one in _needs(entry)),
                str(entry.get("object.comment") or ""),
            )
        )


def _needs(entry: dict[str, Any]) -> list[str]:
    needs = entry.get("_prerequisites") or []
    parts = needs.split(",") if isinstance(needs, str) else needs
    return [str(one).strip() for one in parts]


def _json_params(entry: dict[str, Any], form: Form, labels: dict[str, str]) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for key, value in entry.items():
        name = _JSON_NAMES.get(key, key)
        if key.startswith(("object.", "_")) or (key in _JSON_NAMES and name not in form.params):
            continue
        params[name] = value
    for name in form.pointers():
        if params.get(name):
            params[name] = _renamed(params[name], labels)
    return {name: value for name, value in params.items() if value is not None}


def _renamed(pointer: Any, names: Mapping[str, str]) -> Any:
    """Pointers with the first part replaced: ids by labels, or labels by ids."""
    if isinstance(pointer, list):
        return [_renamed(one, names) for one in pointer]
    first, dot, output = str(pointer).partition(".")
    return f"{names.get(first, first)}{dot}{output}"


def to_json(flow: Workflow) -> str:
    """The workflow as workflow.json."""
    ids = {label: str(number) for number, label in enumerate(flow.nodes, 1)}
    ours = {name: key for key, name in _JSON_NAMES.items()}
    entries: list[dict[str, Any]] = []
    for node in flow.nodes.values():
        entry: dict[str, Any] = {
            "object.className": node.class_name,
            "object.id": ids[node.label],
            "object.label": node.label,
            "object.comment": node.comment,
            "_prerequisites": [ids.get(label, label) for label in node.after],
        }
        pointers = node.form().pointers()
        for name, value in node.params.items():
            if name in pointers and value:
                many = isinstance(pointers[name], MultiPointer) and not isinstance(value, list)
                value = _renamed([value] if many else value, ids)
            entry[ours.get(name, name)] = value
        entries.append(entry)
    plain = msgspec.json.encode(entries, enc_hook=str)
    return msgspec.json.format(plain, indent=2).decode() + "\n"


# -- both ----------------------------------------------------------------------------------------


def _find(flow: Workflow, label: str, class_name: str) -> Kind:
    try:
        return flow.find(class_name)
    except SettingsError as error:
        raise SettingsError(f"{label}: {error}") from error


def _mappings(entries: Any) -> list[dict[str, Any]]:
    if not isinstance(entries, list) or not entries:
        raise SettingsError("has no protocols; list them under protocols:")
    for entry in entries:
        if not isinstance(entry, dict):
            raise SettingsError(f"a protocol is a mapping of names and values, not {entry!r}")
    return entries


def _known(given: Mapping[str, Any], known: tuple[str, ...], what: str) -> None:
    for name in given:
        if name not in known:
            hint = nearest(str(name), known, f"known: {', '.join(known)}")
            raise SettingsError(f"{what} has no {name!r}; {hint}")


def json_schema() -> dict[str, Any]:
    """JSON schema of workflow files, for editors."""
    definitions: dict[str, Any] = {}
    kinds = [_kind_schema(name, kind, definitions) for name, kind in sorted(registered().items())]
    own = {
        "properties": {**_COMMON, "class": {**_TEXT, "pattern": ":"}},
        "required": ["label", "class"],
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pvapy_stream workflow",
        "type": "object",
        "properties": {
            **dict.fromkeys(("name", "description", "channels"), _TEXT),
            "protocols": {"type": "array", "minItems": 1, "items": {"oneOf": [*kinds, own]}},
        },
        "required": ["protocols"],
        "additionalProperties": False,
        "$defs": definitions,
    }


def _kind_schema(name: str, kind: Kind, definitions: dict[str, Any]) -> dict[str, Any]:
    form = kind.form()
    schema = form.model(name).model_json_schema()
    definitions.update(schema.pop("$defs", {}))
    for key, shown in schema["properties"].items():
        shown["description"] = form.params[key].help or form.label(key)
    what = (kind.__doc__ or "").partition("\n")[0]
    return {
        **schema,
        "description": f"{'stage' if issubclass(kind, StreamingStage) else 'steps'}: {what}",
        "properties": {"class": {"const": name}, **_COMMON, **schema["properties"]},
        "required": ["label", "class"],
    }
