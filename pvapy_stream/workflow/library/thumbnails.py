"""Makes small pictures of the images of a set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pvapy_stream.errors import PvapyStreamError, WorkflowError
from pvapy_stream.plugins import require
from pvapy_stream.sim.image_sources import open_image
from pvapy_stream.workflow.model.parameters import (
    Form,
    Int,
    Pointer,
)
from pvapy_stream.workflow.model.protocol_classes import register
from pvapy_stream.workflow.model.validators import Positive
from pvapy_stream.workflow.run.step_protocol import Protocol


@register("Thumbnails")
class Thumbnails(Protocol):
    """Makes small PNG pictures of the images of a set."""

    label = "Thumbnails"
    outputs: ClassVar[Mapping[str, str]] = {"thumbnails": "set"}
    threads = 2
    check_interval = 1.0

    def define_params(self, form: Form) -> None:
        form.add("images", Pointer(None, accepts="set", label="Images"))
        form.add("size", Int(256, help="pixels of the longer side", validators=(Positive,)))

    def insert_all_steps(self) -> None:
        self.output("thumbnails")
        self.steps_check()

    def steps_check(self) -> None:
        for (item,) in self.take("images"):
            self.insert_step(self.make, item["id"], item["file"], prerequisites=[])

    def make(self, number: int, file: str) -> list[str]:
        """Make one picture; a file that is no image is noted as such, and is no failure."""
        picture = self.extra(f"{number:06d}.png")
        entry: dict[str, Any] = {"file": file, "thumbnail": str(picture), "problem": ""}
        try:
            thumbnail(Path(file), picture, self.size)
        except PvapyStreamError as error:
            entry |= {"thumbnail": "", "problem": str(error)}
        self.output("thumbnails").append(entry, key=file)
        return [str(picture)] if entry["thumbnail"] else []


def thumbnail(file: Path, target: Path, size: int) -> None:
    """Write a small grey picture of an image; of a stack, its first.

    Raises:
        PvapyStreamError: the image cannot be read.
    """
    pillow: Any = require("PIL.Image", "images")
    picture = pillow.fromarray(grey(_first_image(file)))
    picture.thumbnail((size, size))
    picture.save(target)


def grey(image: Any) -> np.ndarray:
    """An image as bytes, the darkest and brightest hundredth cut off."""
    pixels = np.asarray(image, dtype=float)
    low, high = np.percentile(pixels, (1, 99))
    return (np.clip((pixels - low) / ((high - low) or 1.0), 0, 1) * 255).astype(np.uint8)


def _first_image(file: Path) -> Any:
    if file.suffix in (".mrc", ".mrcs"):
        mrcfile: Any = require("mrcfile", "movies")
        try:
            with mrcfile.mmap(file, mode="r") as movie:
                return movie.data[0] if movie.data.ndim > 2 else movie.data[:]
        except (ValueError, OSError) as error:
            raise WorkflowError(f"{file} cannot be read: {error}") from error
    source = open_image(file)
    try:
        return source.frame(0).image
    finally:
        source.close()
