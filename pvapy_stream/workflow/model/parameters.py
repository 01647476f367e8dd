"""Parameters of protocols: typed, in sections and groups, with conditions and validators."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path as FilePath
from typing import Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    create_model,
)
from pydantic.fields import FieldInfo

from pvapy_stream.errors import SettingsError
from pvapy_stream.workflow.model.conditions import holds
from pvapy_stream.workflow.model.spelling import nearest
from pvapy_stream.workflow.model.validators import Validator

NORMAL, ADVANCED, EXPERT = 0, 1, 2


@dataclass(frozen=True)
class Param:
    """A field of a pydantic model, with metadata for forms; its subclasses are the types.

    Attributes:
        default: value if none is given.
        label: name in forms; derived from the name if empty.
        condition: expression over other parameters; while it is false, nothing is validated.
        important: shown with emphasis.
        expert_level: 0 normal, 1 advanced, 2 expert.
        validators: called with the value, each returns a list of errors.
        allows_null: whether the value may be missing.
    """

    default: Any = None
    label: str = ""
    help: str = ""
    condition: str = ""
    important: bool = False
    expert_level: int = NORMAL
    validators: tuple[Validator, ...] = ()
    allows_null: bool = False

    kind: ClassVar[str] = "string"
    empty_is_null: ClassVar[bool] = True
    value_type: ClassVar[object] = str

    @property
    def annotation(self) -> Any:
        """Type of a value that is not missing, as pydantic reads it."""
        return self.value_type

    def model_field(self) -> tuple[object, FieldInfo]:
        """The field of a model: its type, and its default."""
        kind = self.annotation | None if self.allows_null else self.annotation
        return kind, FieldInfo(default=self.default)

    @cached_property
    def _adapter(self) -> TypeAdapter[object]:
        return TypeAdapter(self.annotation)

    def parse(self, value: object) -> object:
        """The value in its type.

        Raises:
            ValueError: it has another type, or is missing.
        """
        if value is None or (value == "" and self.empty_is_null):
            if self.allows_null:
                return None
            raise ValueError("is missing; give a value")
        try:
            return self._adapter.validate_python(value)
        except ValidationError as error:
            words = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise ValueError(f"{words} (given {value!r})") from error

    def problems(self, value: object) -> list[str]:
        """Errors of a value of the right type."""
        if value is None:
            return []
        return [problem for validator in self.validators for problem in validator(value)]


def _text(value: object) -> str:
    if isinstance(value, (dict, list, bool)):
        raise ValueError("must be text")
    return str(value)


class String(Param):
    """One line of text."""

    empty_is_null = False
    value_type = Annotated[str, BeforeValidator(_text)]


class Text(String):
    """Several lines of text."""

    kind = "text"


class Path(String):
    """Name of a file or folder, which need not exist."""

    kind = "path"


class File(Path):
    """Name of a file that exists."""

    kind = "file"
    empty_is_null = True

    def problems(self, value: Any) -> list[str]:
        missing = value is not None and not FilePath(value).is_file()
        return [f"file {value} does not exist"] if missing else super().problems(value)


class Folder(Path):
    """Name of a folder that exists."""

    kind = "folder"
    empty_is_null = True

    def problems(self, value: Any) -> list[str]:
        missing = value is not None and not FilePath(value).is_dir()
        return [f"folder {value} does not exist"] if missing else super().problems(value)


class Int(Param):
    """A whole number."""

    kind = "int"
    value_type = int


class Float(Param):
    """A number."""

    kind = "float"
    value_type = float


class Boolean(Param):
    """Yes or no."""

    kind = "boolean"
    value_type = bool


@dataclass(frozen=True)
class Enum(Param):
    """One of several choices, given by name or by number from 0 on."""

    choices: tuple[str, ...] = ()

    kind = "enum"

    @property
    def annotation(self) -> Any:
        schema = WithJsonSchema({"enum": list(self.choices)})
        return Annotated[str, BeforeValidator(self._choice), schema]

    def _choice(self, value: object) -> str:
        if str(value) in self.choices:
            return str(value)
        if str(value).isdecimal() and int(str(value)) < len(self.choices):
            return self.choices[int(str(value))]
        hint = nearest(str(value), self.choices)
        raise ValueError(f"must be one of {', '.join(self.choices)}{hint and '; '}{hint}")


_POINTER = {"type": "string", "pattern": r"^[^.]+\.[^.]+$"}


@dataclass(frozen=True)
class Pointer(Param):
    """An output of another protocol.

    Attributes:
        accepts: kind of output, ``set``, ``stream``, ``bsread`` or ``file``, or several of them;
            "" for any.
    """

    accepts: str | tuple[str, ...] = ""

    kind = "pointer"
    value_type = Annotated[Any, WithJsonSchema(_POINTER)]

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of output it may point to; () for any."""
        kinds = (self.accepts,) if isinstance(self.accepts, str) else self.accepts
        return tuple(filter(None, kinds))


def _several(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


@dataclass(frozen=True)
class MultiPointer(Pointer):
    """Outputs of several other protocols."""

    kind = "multi-pointer"
    value_type = Annotated[
        list[Any],
        BeforeValidator(_several),
        WithJsonSchema({"type": "array", "items": _POINTER}),
    ]


def _numbers(value: object) -> list[int | float]:
    """Numbers from ``3x5 7``."""
    parts = value if isinstance(value, list) else re.split(r"[\s,]+", str(value).strip())
    numbers: list[int | float] = []
    for part in parts:
        times, cross, number = str(part).rpartition("x")
        try:
            one = int(number) if re.fullmatch(r"[+-]?\d+", number) else float(number)
            numbers += [one] * (int(times) if cross else 1)
        except ValueError as error:
            raise ValueError(f"{part!r} is not a number; write it like '3x5 7'") from error
    return numbers


class NumericList(Param):
    """Numbers; ``3x5 7`` is 5 5 5 7."""

    kind = "numeric list"
    value_type = Annotated[
        list[int | float], BeforeValidator(_numbers), WithJsonSchema({"type": "string"})
    ]


def _range(value: object) -> list[int]:
    """Whole numbers from ``1,5-8``."""
    if isinstance(value, list):
        return [int(part) for part in value]
    numbers: list[int] = []
    for part in re.split(r"[\s,]+", str(value).strip()):
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if not found or int(found[2] or found[1]) < int(found[1]):
            raise ValueError(f"{part!r} is not a range; write it like '1,5-8'")
        numbers += range(int(found[1]), int(found[2] or found[1]) + 1)
    return numbers


class NumericRange(Param):
    """Whole numbers; ``1,5-8`` is 1 5 6 7 8."""

    kind = "numeric range"
    value_type = Annotated[list[int], BeforeValidator(_range), WithJsonSchema({"type": "string"})]


class Label(Param):
    """Words in the form; no value."""

    kind = "label"

    def parse(self, value: object) -> None:
        return None


@dataclass(frozen=True)
class Setting(Param):
    """A field of a settings model, which is checked with all of the model when it is wired.

    Attributes:
        info: the field.
    """

    info: FieldInfo = field(default_factory=FieldInfo)

    def model_field(self) -> tuple[object, FieldInfo]:
        return self.info.annotation, self.info

    def parse(self, value: object) -> object:
        return value


@dataclass
class Form:
    """The parameters of a protocol, in order.

    Attributes:
        params: by name.
        sections: name of the section of each parameter.
        groups: name of the group of each parameter, "" for none.
    """

    params: dict[str, Param] = field(default_factory=dict)
    sections: dict[str, str] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    _section: str = "Input"
    _group: str = ""

    def section(self, name: str) -> Form:
        """Begin a section; parameters added from now on belong to it."""
        self._section, self._group = name, ""
        return self

    def group(self, name: str) -> Form:
        """Begin a group of the section; parameters added from now on belong to it."""
        self._group = name
        return self

    def add(self, name: str, param: Param) -> Form:
        """Add a parameter.

        Raises:
            SettingsError: the name is taken, or is no name.
        """
        if name in self.params or not name.isidentifier():
            why = (
                "is defined twice" if name in self.params else "is not a valid name of a parameter"
            )
            raise SettingsError(f"{name!r} {why}")
        self.params[name] = param
        self.sections[name], self.groups[name] = self._section, self._group
        return self

    def label(self, name: str) -> str:
        """Label of a parameter in messages and forms."""
        return self.params[name].label or name.replace("_", " ").capitalize()

    def pointers(self) -> dict[str, Pointer]:
        """Parameters that point to outputs, by name."""
        return {name: p for name, p in self.params.items() if isinstance(p, Pointer)}

    def check_names(self, given: Iterable[str], where: str) -> list[str]:
        """Errors for names that are not parameters, each with the nearest known name."""
        problems: list[str] = []
        for name in given:
            if name not in self.params:
                hint = nearest(name, self.params, f"known: {', '.join(self.params)}")
                problems.append(f"{where} has no parameter {name!r}; {hint}")
        return problems

    def evaluate(self, given: Mapping[str, object]) -> tuple[dict[str, object], list[str]]:
        """All values in their types, and their errors, which begin with the label."""
        values = {n: p.default for n, p in self.params.items()}
        problems: dict[str, str] = {}
        for name, param in self.params.items():
            try:
                values[name] = param.parse(given.get(name, param.default))
            except ValueError as error:
                problems[name] = f"{self.label(name)}: {error}"
        found: list[str] = []
        for name, param in self.params.items():
            if not holds(param.condition, values):
                continue
            if name in problems:
                found.append(problems[name])
            else:
                found += [f"{self.label(name)}: {p}" for p in param.problems(values[name])]
        return values, found

    def model(self, name: str) -> type[BaseModel]:
        """The parameters as a pydantic model, which refuses unknown names."""
        fields: dict[str, Any] = {name: p.model_field() for name, p in self.params.items()}
        with warnings.catch_warnings():
            # Users may call parameters what methods of pydantic are called.
            warnings.simplefilter("ignore", UserWarning)
            config = ConfigDict(extra="forbid", protected_namespaces=())
            return create_model(name, __config__=config, **fields)

    def visible(self, values: Mapping[str, object]) -> set[str]:
        """Parameters whose conditions are true."""
        return {n for n, p in self.params.items() if holds(p.condition, values)}
