"""What the built-in processors share: options with names and limits, and counters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar, cast

import pvaccess as pva
from pydantic import ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from pvapy_stream.base_settings import Settings
from pvapy_stream.errors import SettingsError
from pvapy_stream.hpc.processor import FrameProcessor

# What runners put into every configDict, and the keys of `configure` that are theirs.
RUNNER_KEYS = frozenset(
    {
        "accumulateObjects", "accumulationTimeout", "collectorCacheSize", "collectorId",
        "consumerId", "fieldRequest", "gapTimeout", "inputArgs", "inputChannel", "inputMode",
        "metadataChannels", "nSequentialUpdates", "objectIdField", "objectIdOffset", "outputArgs",
        "outputChannel", "outputMode", "processorId", "producerIdList", "receiverQueueSize",
        "skipInitialUpdates",
    }
)  # fmt: skip


class Options(Settings):
    """Base of a processor's options: camelCase keys outside, snake case inside."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)


O = TypeVar("O", bound=Options)  # noqa: E741


def own_keys(config: object) -> dict[str, object]:
    """A processor's own keys of a configuration.

    Raises:
        SettingsError: it is no dictionary.
    """
    if not isinstance(config, Mapping):
        raise SettingsError(
            f"a processor is configured with a JSON object like '{{\"key\": 1}}', not"
            f" {type(config).__name__}"
        )
    values = cast("Mapping[str, Any]", config)
    return {key: value for key, value in values.items() if key not in RUNNER_KEYS}


def make_options(model: type[O], values: Mapping[str, object]) -> O:
    """Options from a processor's own keys.

    Raises:
        SettingsError: naming each wrong key, and what is allowed.
    """
    known = [field.alias or name for name, field in model.model_fields.items()]
    if unknown := [key for key in values if key not in known]:
        raise SettingsError(f"unknown key {', '.join(map(repr, unknown))}; known are {known}")
    try:
        return model(**values)
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(item) for item in error.errors())) from error


def _explain(item: Any) -> str:
    message = item["msg"].removeprefix("Value error, ")
    key = ".".join(str(part) for part in item["loc"])
    if not key:
        return message
    if item["type"] == "extra_forbidden":
        return f"unknown key {key}"
    return f"{key}: {message} (given {item['input']!r})"


class OptionProcessor(FrameProcessor, Generic[O]):
    """A frame processor with options that `configure` may change, and counters.

    A class names its model in `options_type` and its counters in `COUNTERS`; it reads
    `self.options`, and counts in `self.counts`.

    Raises:
        SettingsError: a key is unknown or its value is not allowed; what was set before stays.
    """

    options_type: type[O]
    COUNTERS: ClassVar[tuple[str, ...]] = ()

    def __init__(self, configDict: dict[str, object] | None = None) -> None:
        super().__init__(configDict)
        self._given = own_keys(configDict or {})
        self.options: O = make_options(self.options_type, self._given)
        self.counts: dict[str, int] = {}
        self.resetStats()

    def configure(self, configDict: Any) -> None:
        """Take new values; what is not named stays."""
        given = {**self._given, **own_keys(configDict)}
        self.options = make_options(self.options_type, given)
        self._given = given

    def resetStats(self) -> None:
        self.counts = dict.fromkeys(self.COUNTERS, 0)

    def getStats(self) -> dict[str, Any]:
        return dict(self.counts)

    def getStatsPvaTypes(self) -> dict[str, object]:
        return dict.fromkeys(self.COUNTERS, pva.ULONG)
