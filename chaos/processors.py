"""Processors of the campaign: what they did shows in the pixels."""

from __future__ import annotations

from pvapy_stream import Frame, FrameProcessor

# Every pixel is the id; a consumer sets this bit, so that a raw frame is known among results.
DONE = 1 << 24
# The hit finder keeps one frame of so many.
KEEPS = 3


def is_hit(frame_id: int) -> bool:
    """Which frames the hit finder keeps; irregular."""
    return (frame_id * 2654435761 >> 7) % KEEPS == 0


class Work(FrameProcessor):
    """Leaves its mark in the pixels."""

    def process_frame(self, frame: Frame) -> Frame | None:
        return frame.replace(image=frame.image | DONE)


class HitFinder(Work):
    """Drops most frames."""

    def process_frame(self, frame: Frame) -> Frame | None:
        return super().process_frame(frame) if is_hit(int(frame.image[0, 0])) else None
