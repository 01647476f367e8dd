"""Runs scans with the Bluesky of another environment; the first argument has what to do, as JSON.

Prints one line of JSON: the documents, or the error; with Tiled, also what its client reads.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from typing import Any

from bluesky import RunEngine
from ophyd_async.core import (
    DetectorAcquireLogic,
    StaticFilenameProvider,
    StaticPathProvider,
    init_devices,
)
from p4p.client.thread import Context


class SecondClient(DetectorAcquireLogic):
    """Starts a simulator that waits for two clients: the writer is the first."""

    def __init__(self, channel: str) -> None:
        self._channel = channel
        self._context: Context | None = None

    async def start_acquiring(self) -> None:
        self._context = Context("pva", nt=False)
        self._monitor = self._context.monitor(self._channel, lambda _: None)

    async def wait_for_idle(self) -> None:
        pass

    async def ensure_stopped(self) -> None:
        if self._context is not None:
            self._context.close()
            self._context = None


def _example(path: str) -> Any:
    spec = importlib.util.spec_from_file_location("example", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _scan(asked: dict[str, Any], documents: list[Any], writer: Any) -> str:
    example = _example(asked["example"])
    engine = RunEngine()
    engine.subscribe(lambda name, document: documents.append((name, document)))
    if writer is not None:
        engine.subscribe(writer)
    with init_devices():
        detector = example.StreamDetector(
            asked["prefix"],
            StaticPathProvider(StaticFilenameProvider(asked["name"]), asked["folder"]),
            SecondClient(asked["channel"]) if asked.get("channel") else None,
            name="detector",
        )
    return engine(example.scan(detector, asked["frames"]))[0]


def _read(client: Any, uid: str) -> dict[str, Any]:
    """What the catalogue has: pixels of each image, and ids from the attributes."""
    run = client[uid]
    stream = run["primary"] if "primary" in run else run["streams"]["primary"]
    images = stream["detector"].read()
    return {
        "shape": list(images.shape),
        "dtype": str(images.dtype),
        "pixels": images.reshape(len(images), -1).tolist(),
        "metadata": run.metadata["start"]["plan_name"],
    }


def main() -> None:
    asked = json.loads(sys.argv[1])
    documents: list[Any] = []
    said: dict[str, Any] = {"documents": documents}
    writer = client = None
    if asked.get("tiled"):
        from bluesky.callbacks.tiled_writer import TiledWriter
        from tiled.client import from_uri

        client = from_uri(asked["tiled"], api_key=asked["key"])
        writer = TiledWriter(client)
    try:
        uid = _scan(asked, documents, writer)
        if client is not None:
            said["read"] = _read(client, uid)
    except Exception as error:
        said["error"] = f"{type(error).__name__}: {error}"
    sys.stdout.write(f"{json.dumps(said, default=str)}\n")


if __name__ == "__main__":
    main()
