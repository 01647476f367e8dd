"""Processors that come with the package: ``--processor-class pvapy_stream.processors.NAME``.

Each file is imported when a class of it is first asked for, so that a consumer that bins images
does not load what writes files or encrypts.
"""

from __future__ import annotations

import importlib
from typing import Any

_FILE_OF = {
    "AdImageDecryptor": "encryption",
    "AdImageEncryptor": "encryption",
    "AverageFrames": "images",
    "Binning": "images",
    "DataDecryptor": "encryption",
    "DataEncryptor": "encryption",
    "Hdf5Writer": "hdf5_writer",
    "ImageFileWriter": "image_files",
    "MetadataAssociator": "metadata",
    "PassThrough": "passthrough",
    "Region": "images",
    "SumFrames": "images",
    "ThresholdCount": "images",
    "TileSplitter": "tiles",
    "TileStitcher": "tiles",
    "Transpose": "transpose",
    "UserMpWorkerPool": "workers",
}

__all__ = sorted(_FILE_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    file = _FILE_OF.get(name)
    if file is None:
        raise AttributeError(
            f"{__name__} has no processor {name!r}; it has {', '.join(sorted(_FILE_OF))}"
        )
    return getattr(importlib.import_module(f"{__name__}.{file}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_FILE_OF})
