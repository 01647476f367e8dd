"""Channels with random values beside the frames, and the channel that gets a put at the start."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence

import pvaccess as pva

from pvapy_stream.errors import TransportError
from pvapy_stream.pva.serving import host_readonly
from pvapy_stream.settings import MetadataChannel
from pvapy_stream.sim.ca_records import CaRecords

logger = logging.getLogger(__name__)

_PVA_TYPE = {"value": pva.DOUBLE, "timeStamp": pva.PvTimeStamp()}
_random = random.Random()  # noqa: S311 - simulated values, nothing secret


class HostedMetadata:
    """Hosts the metadata channels: PVA ones on the given server, CA ones in an IOC of its own.

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
                host_readonly(server, name, obj.copy())
            self._records = CaRecords(self._ca) if self._ca else None
        except (pva.PvaException, ValueError, TransportError) as error:
            raise TransportError(
                f"cannot host the metadata channels of --metadata-pv: {error}"
            ) from error

    def __bool__(self) -> bool:
        return bool(self._pva or self._ca)

    def publish_ca(self) -> None:
        """New values for CA: before the frame gets its time, as their own times are the IOC's."""
        if self._records is not None:
            self._records.put([_random.random() for _ in self._ca])

    def publish_pva(self, seconds: int, nanoseconds: int) -> None:
        """New values for PVA, with the time of the frame."""
        for name, obj in self._pva.items():
            obj.setDouble("value", _random.random())
            obj.setLong("timeStamp.secondsPastEpoch", seconds)
            obj.setInt("timeStamp.nanoseconds", nanoseconds)
            self._server.update(name, obj)

    def stop(self) -> None:
        """Remove the channels."""
        for name in self._pva:
            self._server.removeRecord(name)
        if self._records is not None:
            self._records.close()


def notify(channel: str, value: str, timeout: float) -> bool:
    """Put a value to a CA channel; False, with a warning, when that fails within `timeout` s."""
    try:
        target = pva.Channel(channel, pva.CA)
        target.setTimeout(timeout)
        target.put(value)
    except Exception as error:  # whatever happens there must not keep the frames back
        logger.warning(
            "cannot put %s to notify channel %s: %s; frames are still published",
            value,
            channel,
            error,
        )
        return False
    return True
