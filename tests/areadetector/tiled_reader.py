"""Reads runs with the Tiled of another environment: one for each line, [name, suffix] as JSON.

Prints for each a line of JSON: the complete rows of its arrays, or the error.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from tiled.client import from_uri


def read(client: Any, name: str, suffix: str) -> dict[str, Any]:
    if name not in client:
        return {"count": 0, "ids": []}
    run = client[name]
    if f"count{suffix}" not in run:
        return {"count": 0, "ids": [], "metadata": dict(run.metadata)}
    count = int(run[f"count{suffix}"].read()[0])
    if not count:
        return {"count": 0, "ids": []}
    images = np.asarray(run[f"image{suffix}"][:count])
    ids = np.asarray(run[f"id{suffix}"][:count])
    return {
        "count": count,
        "ids": ids.tolist(),
        "first": images.reshape(count, -1)[:, 0].astype(int).tolist(),
        "shape": list(images.shape),
        "dtype": str(images.dtype),
        "all": images.reshape(count, -1).tolist() if images.size < 10_000 else [],
        "time_ns": np.asarray(run[f"time_ns{suffix}"][:count]).tolist(),
        "values": [[str(v) for v in row] for row in run[f"values{suffix}"][:count]],
        "metadata": dict(run.metadata),
        "arrays": sorted(run),
    }


def main() -> None:
    client = from_uri(sys.argv[1])
    for line in sys.stdin:
        try:
            found = read(client, *json.loads(line))
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}", "count": -1, "ids": []}
        sys.stdout.write(f"{json.dumps(found, default=str)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
