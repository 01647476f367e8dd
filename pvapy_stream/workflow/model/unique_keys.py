"""Reads YAML in which no mapping has a key twice; the second would silently replace the first."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """The safe loader, which refuses keys that are there twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[str, yaml.Mark] = {}
        for key, _ in node.value:
            # Several "<<" are allowed: they name mappings whose keys are taken over.
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        f"{key.value!r} is given twice, first in line {seen[key.value].line + 1};",
                        problem="remove one of them",
                        problem_mark=key.start_mark,
                    )
                seen[key.value] = key.start_mark
        return super().construct_mapping(node, deep)


def load_yaml(text: str) -> Any:
    """What YAML or JSON says.

    Raises:
        yaml.YAMLError: it is neither, or a key is given twice.
    """
    return yaml.load(text, _Loader)  # noqa: S506 - derived from the safe loader
