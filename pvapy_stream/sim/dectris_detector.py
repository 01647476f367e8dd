"""A simulated detector with the Stream V2 interface of DECTRIS, also with faults."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

import numpy as np
import zmq

from pvapy_stream.dectris.arrays import written
from pvapy_stream.dectris.cbor import encode, tagged
from pvapy_stream.errors import TransportError
from pvapy_stream.files import chunks
from pvapy_stream.settings.dectris_sim_settings import DectrisSimSettings
from pvapy_stream.sim.pacing import Pacer

PATTERNS = 16  # different backgrounds
_CLOCK = 1_000_000_000  # Hz; of times in messages
_POLL = 200  # ms
_ENERGY = 12_400.0  # eV
_LINGER = 3000  # ms; for messages that are sent and not taken yet


def pixels_of(series: int, image: int, threshold: int, like: np.ndarray) -> np.ndarray:
    """An image whose first pixels contain its series, image and threshold.

    Args:
        series: series id.
        image: image id.
        threshold: number of the threshold, from 1 on.
        like: array of the shape and type that it gets.
    """
    made = (np.arange(like.size, dtype=np.int64) // 64 + image % PATTERNS) % 50
    made[:3] = np.array([series, image, threshold]) % (np.iinfo(like.dtype).max + 1)
    return made.astype(like.dtype).reshape(like.shape)


def mask_of(threshold: int, shape: tuple[int, int]) -> np.ndarray:
    """The pixel mask of a threshold: as many bad pixels at the end of the last row."""
    mask = np.zeros(shape, np.uint32)
    mask[-1, -threshold:] = 2
    return mask


class DectrisSimulator:
    """Sends series until the end, or until it is stopped.

    Args:
        settings: what was asked for.

    Attributes:
        address: address to which a client connects.
        images: images that were sent, repeated ones included.

    Raises:
        TransportError: the address cannot be bound.
        MissingExtraError: a library is not installed.
    """

    def __init__(self, settings: DectrisSimSettings) -> None:
        self.settings = settings
        self._codec = "" if settings.compression == "none" else settings.compression
        if self._codec:
            chunks.prepare(self._codec)
        self._random = random.Random(settings.seed)  # noqa: S311 - faults, not secrets
        self._like = np.zeros((settings.ny, settings.nx), settings.pixel_type)
        self._stop = threading.Event()
        self._socket: Any = zmq.Context.instance().socket(zmq.PUSH)
        self._socket.linger = _LINGER
        try:
            self._socket.bind(settings.address)
        except zmq.ZMQError as error:
            self._socket.close(0)
            raise TransportError(
                f"cannot bind {settings.address}: {error}; choose another --address"
            ) from error
        self.address: str = self._socket.last_endpoint.decode().rstrip("\0")
        self.images = 0

    def run(self, stop: threading.Event) -> int:
        """Send; returns the exit code.

        Raises:
            TransportError: no client takes a message in time.
        """
        self._stop = stop
        settings = self.settings
        try:
            series = 0
            while not stop.is_set() and (not settings.n_series or series < settings.n_series):
                if series:
                    stop.wait(settings.pause)
                self._series(settings.first_series + series)
                series += 1
        finally:
            self._socket.close()
        return 0

    def _series(self, number: int) -> None:
        settings = self.settings
        name = {"series_id": number, "series_unique_id": uuid.uuid4().hex}
        began = datetime.now(timezone.utc).isoformat()
        if not settings.no_start:
            self._send({"type": "start", **name, **self._start(began)})
        pacer = Pacer(settings.rate, self._stop)
        held: bytes | None = None
        for image in range(settings.n_images - settings.omit_last):
            if not pacer.wait(image):
                break
            if self._happens(settings.drop):
                continue
            message = encode({"type": "image", **name, **self._image(number, image, began)})
            if held is None and self._happens(settings.reorder):
                held = message
                continue
            self._send_image(message)
            if held is not None:
                self._send_image(held)
                held = None
        if held is not None:
            self._send_image(held)
        if not settings.no_end:
            self._send({"type": "end", **name})

    def _send_image(self, message: bytes) -> None:
        self._send(message)
        self.images += 1
        if self._happens(self.settings.duplicate):
            self._send(message)
            self.images += 1
        if self._happens(self.settings.malformed):
            self._send(message[: self._random.randrange(len(message))])

    def _channels(self) -> list[str]:
        return [f"threshold_{number + 1}" for number in range(self.settings.thresholds)]

    def _start(self, began: str) -> Mapping[str, object]:
        settings = self.settings
        return {
            "arm_date": tagged(0, began),
            "beam_center_x": settings.nx / 2,
            "beam_center_y": settings.ny / 2,
            "channels": self._channels(),
            "count_time": 1 / (settings.rate or 100),
            "countrate_correction_enabled": False,
            "detector_description": "simulated detector",
            "detector_serial_number": "SIM-1",
            "detector_translation": [0.0, 0.0, 0.2],
            "frame_time": 1 / (settings.rate or 100),
            "image_dtype": settings.pixel_type,
            "image_size_x": settings.nx,
            "image_size_y": settings.ny,
            "incident_energy": _ENERGY,
            "incident_wavelength": 1.0,
            "number_of_images": settings.n_images,
            "pixel_mask": {
                name: self._written(mask_of(number + 1, self._like.shape))
                for number, name in enumerate(self._channels())
            },
            "pixel_mask_enabled": False,
            "pixel_size_x": 75e-6,
            "pixel_size_y": 75e-6,
            "saturation_value": int(np.iinfo(settings.pixel_type).max) - 1,
            "sensor_material": "Si",
            "sensor_thickness": 450e-6,
            "threshold_energy": {
                name: _ENERGY / 2 + 1000 * number for number, name in enumerate(self._channels())
            },
        }

    def _image(self, series: int, image: int, began: str) -> Mapping[str, object]:
        period = round(_CLOCK / (self.settings.rate or 100))
        data = {
            name: self._written(pixels_of(series, image, number + 1, self._like))
            for number, name in enumerate(self._channels())
        }
        return {
            "data": data,
            "image_id": image,
            "real_time": [period, _CLOCK],
            "series_date": tagged(0, began),
            "start_time": [image * period, _CLOCK],
            "stop_time": [(image + 1) * period, _CLOCK],
        }

    def _written(self, pixels: np.ndarray) -> Any:
        if not self._codec:
            return written(pixels)
        chunk = chunks.encode(self._codec, pixels)
        made = written(pixels, self._codec, bytes(chunk))
        chunks.recycle(chunk)
        return made

    def _happens(self, part: float) -> bool:
        return part > 0 and self._random.random() < part

    def _send(self, message: bytes | Mapping[str, object]) -> None:
        data = message if isinstance(message, bytes) else encode(message)
        waited = 0.0
        while not self._stop.is_set():
            if self._socket.poll(_POLL, zmq.POLLOUT):
                self._socket.send(data)
                return
            waited += _POLL / 1000
            if waited >= self.settings.send_timeout:
                raise TransportError(
                    f"no client of {self.address} has taken a message for"
                    f" {self.settings.send_timeout:g} s; start one, or give more time with"
                    " --send-timeout"
                )
