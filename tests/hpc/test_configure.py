"""What a `configure` command answers: which keys were taken, and which nobody knew."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pvapy_stream.hpc.control_channel import KeysRead
from tests.support import Commands, Source, command, wait_for_monitors, write_processor

PROCESSORS = """
from pvapy_stream import FrameProcessor, UserDataProcessor

class Reads(UserDataProcessor):
    def configure(self, configDict):
        self.threshold = configDict.get("threshold", 3)
        if "rows" in configDict:
            self.rows = configDict["rows"]

class Keeps(UserDataProcessor):
    def configure(self, configDict):
        self.config = configDict

class Ignores(FrameProcessor):
    def process_frame(self, frame):
        return frame
"""

DONE = "Configuration successful"


@pytest.mark.parametrize(
    ("name", "values", "reply"),
    [
        ("Reads", {"threshold": 5, "rows": 2, "receiverQueueSize": 9}, DONE),
        (
            "Reads",
            {"treshold": 5, "rows": 2, "receiverQueueSize": 9},
            f"{DONE}; taken: rows, receiverQueueSize; unknown: treshold",
        ),
        (
            "Reads",
            {"collectorCacheSize": 9},
            f"{DONE}; taken: none; unknown: collectorCacheSize",
        ),
        ("Keeps", {"any": 1}, DONE),
        (
            "Ignores",
            {"any": 1, "objectIdOffset": 1},
            f"{DONE}; taken: objectIdOffset; unknown: any",
        ),
    ],
)
def test_keys_that_nobody_knows_are_named(
    name: str, values: dict[str, Any], reply: str,
    prefix: str, source: Source, commands: Commands, tmp_path: Path,
) -> None:  # fmt: skip
    file = write_processor(tmp_path, PROCESSORS)
    commands(
        "consumer", "-ic", source.channel, "-oc", f"{prefix}o", "-sc", f"{prefix}s",
        "-cc", f"{prefix}c", "-pf", file, "-pc", name, "-rqs", "0",
    )  # fmt: skip
    wait_for_monitors([f"{prefix}s"])
    assert command(f"{prefix}c", "configure", json.dumps(values)) == reply


@pytest.mark.parametrize(
    "read",
    [
        lambda keys: {**keys},
        lambda keys: dict(keys),
        lambda keys: {}.update(keys),
        lambda keys: {} | keys,
        lambda keys: keys | {},
        lambda keys: [keys.pop("a"), keys["b"]],
        lambda keys: [keys.get("a"), "b" in keys],
        lambda keys: list(keys),
        lambda keys: keys == {"a": 1, "b": 2},
        lambda keys: json.dumps(keys),
        lambda keys: pickle.dumps(keys),
        copy.deepcopy,
        lambda keys: (lambda a, b: None)(**keys),
    ],
)
def test_all_ways_to_read_a_key(read: Callable[[Any], Any]) -> None:
    keys = KeysRead({"a": 1, "b": 2})
    assert keys.read == set()
    read(keys)
    assert keys.read == {"a", "b"}


def test_it_is_a_dictionary() -> None:
    keys = KeysRead({"a": 1})
    assert isinstance(keys, dict)
    assert str(keys) == "{'a': 1}"
    assert type(pickle.loads(pickle.dumps(keys))) is dict
    assert keys.read == {"a"}
