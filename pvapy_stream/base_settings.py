"""The common part of all settings: options on the command line, texts of help, errors.

Transports declare settings too, so this lies below them.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar, get_args

from msgspec import Struct
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from pvapy_stream.errors import SettingsError

Self = TypeVar("Self", bound="Settings")

PixelKind = Literal[
    "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"
]
PIXEL_TYPES: tuple[str, ...] = get_args(PixelKind)

# What a sender does if the queue of a subscriber that can slow it down is full.
Overflow = Literal["block", "drop-newest", "drop-oldest"]
OVERFLOW_TIMEOUT = (
    "longest wait for a subscriber whose queue is full; then it counts as stuck, and its objects"
    " are rejected until it takes one"
)


def lower(value: object) -> Any:
    """Text in lower case; anything else as it is."""
    return value.lower() if isinstance(value, str) else value


class Opt(Struct, frozen=True):
    """The command-line form of a setting.

    Attributes:
        flags: its options.
        group: its group in the help.
        unit: unit of its value.
        metavar: name of its value in the help.
        many: whether it takes several values, and may be given again.
    """

    flags: tuple[str, ...]
    group: str = "General"
    unit: str = ""
    metavar: str = ""
    many: bool = False

    @classmethod
    def of(
        cls, flags: str, group: str, unit: str = "", metavar: str = "", many: bool = False
    ) -> Opt:
        return cls(tuple(flags.split()), group, unit, metavar, many)


opt = Opt.of


class Completed:
    """Metadata of a setting whose help depends on what is installed."""

    __slots__ = ()

    def complete(self, description: str) -> str:
        """The description with what is known when somebody reads it."""
        raise NotImplementedError


class Choices(Completed):
    """Metadata of a setting whose choices depend on what is installed."""

    __slots__ = ()

    def names(self) -> tuple[str, ...]:
        """The choices that are shown."""
        raise NotImplementedError


def is_plain(field: FieldInfo) -> bool:
    """Whether the description and the choices of a setting do not depend on what is installed."""
    return not any(isinstance(item, Completed) for item in field.metadata)


def description_of(field: FieldInfo) -> str:
    """The description of a setting, completed."""
    text = field.description or ""
    for item in field.metadata:
        if isinstance(item, Completed):
            text = item.complete(text)
    return text


def choices_of(field: FieldInfo) -> tuple[str, ...]:
    """The choices of a setting that are known only at run time; () for other settings."""
    return next((item.names() for item in field.metadata if isinstance(item, Choices)), ())


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    @classmethod
    def of(cls: type[Self], **values: Any) -> Self:
        """Create settings; like the constructor, but with a `SettingsError`.

        Raises:
            SettingsError: naming each wrong option and what is wrong with it.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            raise SettingsError(
                "; ".join(_explain(cls, item) for item in error.errors())
            ) from error

    def replace(self: Self, **changes: Any) -> Self:
        """A copy with some values changed, validated again."""
        return type(self).of(
            **{**{name: getattr(self, name) for name in self.model_fields_set}, **changes}
        )


def option_of(model: type[Settings], name: str) -> Opt | None:
    """The command-line form of a field, if it has one."""
    field = model.model_fields.get(name)
    return next((m for m in field.metadata if isinstance(m, Opt)), None) if field else None


def _explain(model: type[Settings], item: Any) -> str:
    if not item["loc"]:
        return item["msg"].removeprefix("Value error, ")
    name = str(item["loc"][0])
    option = option_of(model, name)
    label = option.flags[-1] if option else name
    if item["type"] == "extra_forbidden":
        return f"unknown setting {name!r}; known are {', '.join(sorted(model.model_fields))}"
    if item["type"] == "missing":
        return f"{label} is required"
    return f"{label}: {item['msg'].removeprefix('Value error, ')} (given {item['input']!r})"
