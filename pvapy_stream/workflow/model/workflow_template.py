"""Templates: workflow.json with fields ``~label|default|type|alias~``; the alias is optional."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pvapy_stream.errors import SettingsError
from pvapy_stream.workflow.model.conditions import holds
from pvapy_stream.workflow.model.graph import Workflow
from pvapy_stream.workflow.model.parameters import Boolean, Float, Int, Param, String
from pvapy_stream.workflow.model.workflow_file import parse_workflow

_FIELD = re.compile(r"~([^~|\n]*)\|([^~|\n]*)\|([^~|\n]*)(?:\|([^~|\n]*))?~")
# Whatever else looks like one; folders of users (~/data) do not.
_BROKEN_FIELD = re.compile(r"~(?!/)[^~\"\n]*\|[^~\"\n]*~(?!/)")
_VARIABLE = re.compile(r"%\((\w+)\)s")
_BOOLEANS = {"true", "false", "0", "1"}
_KINDS = {"0": "string", "1": "path", "2": "boolean", "3": "integer", "4": "float"}
_PARAMS: dict[str, Param] = {
    "string": String(),
    "path": String(),
    "boolean": Boolean(),
    "integer": Int(),
    "float": Float(),
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TemplateField:
    """A field of a template.

    Attributes:
        label: what it is called.
        default: its first value.
        kind: string, path, boolean, integer or float.
        alias: its name on a command line; the label where it has none.
    """

    label: str
    default: str
    kind: str
    alias: str

    def parse(self, value: object) -> object:
        """The value in its type.

        Raises:
            SettingsError: it is of another type; the label is named.
        """
        try:
            return _PARAMS[self.kind].parse(value)
        except ValueError as error:
            raise SettingsError(f"{self.label}: {error}") from error

    def parsed_default(self) -> object:
        """The default in its type; None when it has another."""
        try:
            return self.parse(self.default)
        except SettingsError:
            return None


class Template:
    """A workflow with fields.

    Args:
        text: of the file.
        name: of the workflow.
        sources: folder where files of classes and inputs are looked for.

    Raises:
        SettingsError: a field is wrong, or there is no workflow.
    """

    def __init__(self, text: str, name: str = "", sources: Path | None = None) -> None:
        start = text.find("[")
        if start < 0:
            raise SettingsError("there is no workflow: a list of protocols in brackets")
        self.name = name
        self.sources = sources
        self.description = text[:start].strip()
        self._body = _VARIABLE.sub(_expand, text[start:])
        self.fields: dict[str, TemplateField] = {}
        for found in _FIELD.finditer(self._body):
            field = _field(*_parts(found))
            if field.alias in self.fields:
                raise SettingsError(
                    f"two fields have the alias {field.alias!r}: {self.fields[field.alias].label}"
                    f" and {field.label}; give them different ones"
                )
            self.fields[field.alias] = field
        if broken := _BROKEN_FIELD.search(_FIELD.sub("", self._body)):
            raise SettingsError(
                f"{broken[0]} is not a field; write ~label|default|type~ or"
                " ~label|default|type|alias~"
            )
        # Errors of the rest are better reported now than after the form was filled in.
        self._places = self._find_places()

    @classmethod
    def read(cls, path: Path | str) -> Template:
        """Read a template from a file.

        Raises:
            SettingsError: the file is missing or wrong.
        """
        path = Path(path)
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"cannot read template {path}: {error}") from error
        try:
            return cls(text, path.name.partition(".")[0], path.parent)
        except SettingsError as error:
            raise SettingsError(f"{path}: {error}") from error

    def parse_values(
        self, given: Mapping[str, object], defaults: bool = False
    ) -> tuple[dict[str, object], list[str]]:
        """All values in their types, and what is wrong with them.

        A field that is wrong or missing has its default. Where its condition does not hold, that
        is no problem.

        Args:
            given: by alias.
            defaults: take the defaults of fields that are not given.
        """
        unknown = [
            f"there is no field {alias!r}; aliases are {', '.join(self.fields)}"
            for alias in given
            if alias not in self.fields
        ]
        values: dict[str, object] = {}
        wrong: dict[str, str] = {}
        for alias, field in self.fields.items():
            values[alias] = field.parsed_default()
            if alias not in given and not defaults:
                wrong[alias] = f"{field.label}: give {alias}=…, or --defaults"
                continue
            try:
                values[alias] = field.parse(given.get(alias, field.default))
            except SettingsError as error:
                wrong[alias] = str(error)
        shown = self.shown(values)
        return values, unknown + [wrong[alias] for alias in wrong if alias in shown]

    def shown(self, values: Mapping[str, Any]) -> set[str]:
        """Fields whose conditions hold, by alias; all where that is not known."""
        try:
            return self.visible(values)
        except SettingsError:
            return set(self.fields)

    def fill(self, values: Mapping[str, Any]) -> Workflow:
        """The workflow with values in place of the fields.

        Args:
            values: by alias, in their types.

        Raises:
            SettingsError: the workflow is wrong with them.
        """
        text = re.sub(rf'"{_FIELD.pattern}"', lambda m: self._value(m, values, True), self._body)
        text = _FIELD.sub(lambda m: self._value(m, values, False), text)
        flow = parse_workflow(text, self.name, self.sources)
        flow.description = self.description
        return flow

    def problems(self, values: Mapping[str, object]) -> list[str]:
        """What is wrong with the workflow with these values, by the labels of the fields.

        Args:
            values: by alias, in their types.
        """
        try:
            flow = self.fill(values)
        except SettingsError as error:
            return [str(error)]
        return [self.by_labels(problem, flow) for problem in flow.problems()]

    def by_labels(self, text: str, flow: Workflow) -> str:
        """A message about a workflow, with the labels of fields in place of options."""
        nodes = list(flow.nodes.values())
        for alias, (place, name, _) in self._places.items():
            option = f"{nodes[place].label}: --{name.replace('_', '-')}: "
            text = text.replace(option, f"{self.fields[alias].label}: ")
        return text

    def _value(self, found: re.Match[str], values: Mapping[str, Any], quoted: bool) -> str:
        label, _, _, alias = _parts(found)
        value = values[alias or label]
        encoded = json.dumps(value, ensure_ascii=False)
        # A field that is a part of a longer text loses its quotes; a whole one is as it is.
        return encoded[1:-1] if isinstance(value, str) and not quoted else encoded

    # -- what the protocols say of the fields ----------------------------------------------------

    def _find_places(self) -> dict[str, tuple[int, str, Param]]:
        """Protocol, by its place, and parameter, of fields that are a whole parameter."""
        # Values by which a field is recognised; a label may contain them.
        marks = {alias: f"__field_{number}__" for number, alias in enumerate(self.fields)}
        flow = self.fill(marks)
        found: dict[str, tuple[int, str, Param]] = {}
        for place, node in enumerate(flow.nodes.values()):
            unknown = node.form().check_names(node.params, node.label)
            if unknown:
                raise SettingsError("; ".join(unknown))
            for name, value in node.params.items():
                for alias, mark in marks.items():
                    if value == mark:
                        found[alias] = (place, name, node.form().params[name])
        return found

    def param(self, alias: str) -> Param | None:
        """The parameter that a field sets."""
        return self._places[alias][2] if alias in self._places else None

    def visible(self, values: Mapping[str, object]) -> set[str]:
        """Fields whose conditions hold for these values, by alias."""
        nodes = list(self.fill(values).nodes.values())
        shown = set(self.fields)
        for alias, (place, _, param) in self._places.items():
            form = nodes[place].form()
            current, _ = form.evaluate(nodes[place].params)
            if not holds(param.condition, current):
                shown.discard(alias)
        return shown


def _parts(found: re.Match[str]) -> list[str]:
    return [part.strip() for part in found.groups(default="")]


def _expand(found: re.Match[str]) -> str:
    value = os.environ.get(found[1])
    if value is None:
        raise SettingsError(f"the environment has no {found[1]}, which the template needs")
    return json.dumps(value)[1:-1]


def _field(label: str, default: str, code: str, alias: str) -> TemplateField:
    if code not in _KINDS:
        known = ", ".join(f"{number} {kind}" for number, kind in _KINDS.items())
        raise SettingsError(f"field {label!r} has the unknown type {code!r}; types are {known}")
    kind = _KINDS[code]
    looks_boolean = default.lower() in _BOOLEANS
    if kind in ("path", "boolean") and looks_boolean != (kind == "boolean"):
        kind = "boolean" if looks_boolean else "path"
        _log.warning(
            "field %r has type %s, which is %s, but its default %r is a %s; taken as %s",
            label, code, _KINDS[code], default, kind, kind,
        )  # fmt: skip
    return TemplateField(label, default, kind, alias or label)
