"""Transposes images: a small real processor, which the demonstration and the benchmarks run."""

from __future__ import annotations

from pvapy_stream.frame import Frame
from pvapy_stream.hpc.processor import FrameProcessor

__all__ = ["Transpose"]


class Transpose(FrameProcessor):
    """Swaps rows and columns of each image."""

    def process_frame(self, frame: Frame) -> Frame:
        image = frame.image
        return frame.replace(image=image.T if image.ndim == 2 else image.transpose(1, 0, 2))
