"""Settings that name a transport: their choices and help come from the registry."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import PydanticCustomError, core_schema

from pvapy_stream.base_settings import Choices, Completed
from pvapy_stream.errors import SettingsError
from pvapy_stream.transport import registry


@dataclass(frozen=True, slots=True)
class ModeChoice(Choices):
    """Metadata of a setting that is the name of a mode.

    Attributes:
        end: which end the mode must have.
        default: the mode that is listed first.
    """

    end: registry.End
    default: str = "pva"

    def names(self) -> tuple[str, ...]:
        """Names of the modes to choose from, the default first."""
        found = registry.names(self.end)
        return (self.default, *(name for name in found if name != self.default))

    def complete(self, description: str) -> str:
        """The description, followed by what each mode is."""
        helps = ((name, getattr(registry.find(name), self.end).help) for name in self.names())
        parts = [
            f"{', '.join(name for name, _ in group)}: {text}"
            for text, group in groupby(helps, lambda pair: pair[1])
            if text
        ]
        return f"{description}: {'; '.join(parts)}"

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, object]:
        return {**handler(schema), "enum": list(self.names())}

    def _check(self, name: str) -> str:
        if registry.is_known(name):
            try:
                if getattr(registry.find(name), self.end) is not None:
                    return name
            except SettingsError as error:
                raise ValueError(str(error)) from error
        raise PydanticCustomError(
            "literal_error", "Input should be {expected}", {"expected": _either(self.names())}
        )


@dataclass(frozen=True, slots=True)
class ArgsHelp(Completed):
    """Metadata of ``--input-args`` and ``--output-args``: which modes take any."""

    end: Literal["input", "output"]

    def complete(self, description: str) -> str:
        """The description with the names of the modes in place of ``MODES``."""
        found = [n for n in registry.names(self.end) if getattr(registry.find(n), self.end).args]
        return description.replace("MODES", f"mode{'s' * (len(found) > 1)} {', '.join(found)}")


class StreamsHelp(Completed):
    """Metadata of a setting that may be a stream of images."""

    def complete(self, description: str) -> str:
        """The description with all forms of such streams in place of ``IMAGES``."""
        return description.replace("IMAGES", image_forms())


class ProvidersHelp(Completed):
    """Metadata of the mirror's channel map."""

    def complete(self, description: str) -> str:
        """The description with the names of all providers in place of ``PROVIDERS``."""
        return description.replace("PROVIDERS", "|".join(registry.providers()))


def image_forms() -> str:
    """How streams of images are written: ``pva://CHANNEL or shm://CHANNEL``."""
    *first, last = (f"{name}://CHANNEL" for name in registry.image_streams())
    return f"{', '.join(first)} or {last}" if first else last


def _either(names: tuple[str, ...]) -> str:
    *first, last = (repr(name) for name in names)
    return f"{', '.join(first)} or {last}" if first else last
