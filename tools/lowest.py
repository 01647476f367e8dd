"""Prints the lowest versions that pyproject.toml allows, as constraints of pip.

``make lowest`` installs them, and walks through the first hour of a newcomer.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[1]
_LOWER = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*>=\s*([0-9][0-9.]*)")


def constraints(requirements: Iterable[str]) -> Iterator[str]:
    """``name==version`` for each requirement, with the version that is the lowest allowed.

    Raises:
        ValueError: a requirement has no lowest version.
    """
    for requirement in requirements:
        found = _LOWER.match(requirement)
        if found is None:
            raise ValueError(f"{requirement!r} has no lowest version; write >=")
        marker = requirement.partition(";")[2]
        yield f"{found[1]}=={found[2]}" + (f" ;{marker}" if marker else "")


def main() -> int:
    """Print the constraints for what is always needed."""
    project = msgspec.toml.decode((ROOT / "pyproject.toml").read_bytes())["project"]
    sys.stdout.write("".join(f"{line}\n" for line in constraints(project["dependencies"])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
