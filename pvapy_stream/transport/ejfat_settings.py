"""Arguments of mode ``ejfat``."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from pydantic import ConfigDict, Field, model_validator

from pvapy_stream.base_settings import Settings
from pvapy_stream.errors import SettingsError

_DATA_PORT = 19522  # of a load balancer, if the URI has none
_SCHEMES = ("ejfat", "ejfats")
_MIB = 2**20

# Arguments of the control plane and of the library's threads, which have no effect between programs
# of this package; the last three have none on sending.
_WITHOUT_EFFECT = frozenset(
    "Kd Ki Kp connectedSocket dpV6 epoch_ms eventSourceId hostname maxFactor max_factor minFactor"
    " min_factor nReceivingThreads numSendSockets period_ms processingDelay processorId setPoint"
    " sourceCount stateUpdatePeriod syncPeriodMs syncPeriods useHostAddress validateCert"
    " validateServer warmUpMs weight withLBHeader bufferCacheSize ipAddress port".split()
)


class EjfatSettings(Settings):
    """Arguments of both ends; names on the command line are those of PvaPy."""

    # Unknown arguments are ignored, with a warning, as they are in PvaPy.
    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True)

    uri: str = Field("", description="EJFAT URI, if the channel is not one")
    use_cp: bool = Field(True, alias="useCP", description="use the load balancer's control plane")
    add_processor_id_to_port: bool = Field(False, alias="addProcessorIdToPort")

    @model_validator(mode="after")
    def _no_control_plane(self) -> EjfatSettings:
        if self.use_cp:
            raise ValueError(
                "mode ejfat works only without a load balancer and its control plane; give the"
                ' argument {"useCP": 0}'
            )
        return self

    @property
    def unknown(self) -> list[str]:
        """Unknown arguments, which have no effect."""
        return sorted(set(self.model_extra or {}) - _WITHOUT_EFFECT)

    def data_address(self, channel: str) -> tuple[str, int]:
        """Host and port of the data plane; ("", port) when the URI names none.

        Raises:
            SettingsError: there is no EJFAT URI, or it is malformed.
        """
        text = channel if channel.startswith(_SCHEMES) else self.uri
        example = "write ejfat://TOKEN@HOST:PORT/lb/1?data=HOST:PORT"
        try:
            parts = urlsplit(text)
            data = parse_qs(parts.query).get("data", [""])[0]
            address = urlsplit(f"//{data}")
            host, port = address.hostname or "", address.port or _DATA_PORT
        except ValueError as error:
            raise SettingsError(
                f"the EJFAT URI cannot be read ({error}): {text}; {example}"
            ) from error
        if parts.scheme not in _SCHEMES:
            raise SettingsError(
                f"mode ejfat needs an EJFAT URI as the channel or as the argument uri, not"
                f" {text or channel!r}; {example}"
            )
        return host, port


class EjfatInputSettings(EjfatSettings):
    """Arguments of ``--input-args``."""

    ip_address: str = Field(
        "", alias="ipAddress", description="address to listen at; default: from the URI"
    )
    port: int = Field(10000, ge=1, le=65535, description="UDP port to listen at")
    rcv_socket_buf_size: int = Field(3 * _MIB, ge=1, alias="rcvSocketBufSize", description="bytes")
    event_timeout_ms: int = Field(
        500,
        gt=0,
        alias="eventTimeout_ms",
        description="time limit for the assembly of an event, ms",
    )
    buffer_cache_size: int = Field(
        1000,
        alias="bufferCacheSize",
        description="maximum number of events in assembly, and of waiting ones",
    )
    max_event_size: int = Field(
        256 * _MIB, gt=0, lt=2**32, alias="maxEventSize", description="limit of one event, bytes"
    )
    max_memory: int = Field(
        1024 * _MIB, gt=0, alias="maxMemory", description="memory limit of all events, bytes"
    )
    allow_pickled: bool = Field(
        False, alias="allowPickled", description="accept pickled objects, as PvaPy sends them"
    )

    @model_validator(mode="after")
    def _an_event_fits(self) -> EjfatInputSettings:
        if self.max_event_size > self.max_memory:
            raise ValueError(
                f"maxEventSize {self.max_event_size} is larger than maxMemory {self.max_memory}:"
                " such an event could never be received"
            )
        return self


class EjfatOutputSettings(EjfatSettings):
    """Arguments of ``--output-args``."""

    data_id: int = Field(0, ge=0, lt=2**16, alias="dataId", description="id of this source")
    mtu: int = Field(
        1500, ge=128, le=65535, description="largest IP packet, headers included, bytes"
    )
    snd_socket_buf_size: int = Field(3 * _MIB, ge=1, alias="sndSocketBufSize", description="bytes")
    rate_gbps: float = Field(
        -1, alias="rateGbps", description="limit of the sending rate, Gbit/s; negative: no limit"
    )
