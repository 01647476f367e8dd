"""Channels with random values beside the frames, and the channel that is told of the start."""

from __future__ import annotations

import logging
import os
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pvaccess as pva

from pvapy_stream.errors import TransportError
from pvapy_stream.settings import MetadataChannel

logger = logging.getLogger(__name__)

_PVA_TYPE = {"value": pva.DOUBLE, "timeStamp": pva.PvTimeStamp()}
_random = random.Random()  # noqa: S311 - simulated values, nothing secret


class Metadata:
    """Hosts the metadata channels: PVA ones on the given server, CA ones on an IOC of its own.

    A process can have one IOC, once.

    Raises:
        TransportError: a channel cannot be hosted.
    """

    def __init__(self, server: pva.PvaServer, channels: Sequence[MetadataChannel]) -> None:
        self._server = server
        self._pva = {
            channel.name: pva.PvObject(_PVA_TYPE)
            for channel in channels
            if channel.provider == "pva"
        }
        self._ca = [channel.name for channel in channels if channel.provider == "ca"]
        try:
            for name, obj in self._pva.items():
                server.addRecord(name, obj.copy(), None)
            self._ioc: Any = _start_ioc(self._ca) if self._ca else None
        except (pva.PvaException, ValueError) as error:
            raise TransportError(
                f"cannot host the metadata channels: {error}; change --metadata-pv"
            ) from error

    def __bool__(self) -> bool:
        return bool(self._pva or self._ca)

    def publish_ca(self) -> None:
        """New values for CA: before the frame gets its time, as their own times are the IOC's."""
        for name in self._ca:
            self._ioc.putField(name, _random.random())

    def publish_pva(self, seconds: int, nanoseconds: int) -> None:
        """New values for PVA, with the time of the frame."""
        for name, obj in self._pva.items():
            obj.setDouble("value", _random.random())
            obj.setLong("timeStamp.secondsPastEpoch", seconds)
            obj.setInt("timeStamp.nanoseconds", nanoseconds)
            self._server.update(name, obj)

    def stop(self) -> None:
        """Remove the PVA channels; the IOC lives as long as the process."""
        for name in self._pva:
            self._server.removeRecord(name)


def _start_ioc(names: Sequence[str]) -> Any:
    folder = os.environ.get("EPICS_DB_INCLUDE_PATH") or str(Path(pva.__file__).parent / "dbd")
    ioc = pva.CaIoc()
    ioc.loadDatabase("base.dbd", folder, "")
    ioc.registerRecordDeviceDriver()
    with tempfile.TemporaryDirectory() as where:
        file = Path(where) / "metadata.db"
        file.write_text("".join(f'record(ao, "{name}") {{ field(PREC, "6") }}\n' for name in names))
        ioc.loadRecords(str(file), "")
        ioc.start()
    return ioc


def notify(channel: str, value: str, timeout: float) -> bool:
    """Put a value to a CA channel; False, with a warning, when that fails within `timeout` s."""
    try:
        target = pva.Channel(channel, pva.CA)
        target.setTimeout(timeout)
        target.put(value)
    except Exception as error:  # whatever happens there must not keep the frames back
        logger.warning(
            "cannot put %s to notify channel %s: %s; frames are published all the same",
            value,
            channel,
            error,
        )
        return False
    return True
