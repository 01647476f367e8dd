"""CPU, memory, network, disks and GPUs of this machine."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import psutil

from pvapy_stream.errors import MissingExtraError
from pvapy_stream.monitor.base import Clock, Sample, SamplingMonitor
from pvapy_stream.monitor.kinds import MonitorKind
from pvapy_stream.monitor.outbox import Notifier
from pvapy_stream.monitor.series_store import SeriesStore
from pvapy_stream.monitor.stages import RateMeter
from pvapy_stream.plugins import require
from pvapy_stream.settings import MonitorSettings

_MB = 1e6

_log = logging.getLogger(__name__)


class SystemSettings(MonitorSettings):
    """CPU, memory, network, disks and GPUs of this machine."""

    QUANTITIES: ClassVar[Mapping[str, str]] = {
        "cpu": "%", "memory": "%", "swap": "%", "load": "",
        "network_in": "MB/s", "network_out": "MB/s", "disk_read": "MB/s", "disk_write": "MB/s",
        "gpu": "%", "gpu_memory": "%", "gpu_temperature": "C",
    }  # fmt: skip


class SystemMonitor(SamplingMonitor):
    """What this machine is busy with. GPUs are shown when nvidia-ml-py is installed."""

    kind = "system"

    def __init__(
        self,
        settings: SystemSettings,
        store: SeriesStore | None = None,
        notifiers: Iterable[Notifier] = (),
        clock: Clock | None = None,
    ) -> None:
        super().__init__(settings, store, notifiers, clock)
        self._host = platform.node() or "localhost"
        self._meter = RateMeter()
        self._gpus = _Gpus()
        # The first call only begins to count.
        psutil.cpu_percent(None)
        self._meter.update(_traffic(), self.clock.now())

    def sample(self) -> list[Sample]:
        rates = self._meter.update(_traffic(), self.clock.now())
        values: dict[str, tuple[float, str]] = {
            "cpu": (psutil.cpu_percent(None), "%"),
            "memory": (psutil.virtual_memory().percent, "%"),
            "swap": (psutil.swap_memory().percent, "%"),
            "load": (psutil.getloadavg()[0], ""),
            **{name: (rate, "MB/s") for name, rate in rates.items()},
        }
        return [
            *(Sample(self._host, name, value, unit) for name, (value, unit) in values.items()),
            *self._gpus.sample(self._host),
        ]


def _traffic() -> dict[str, float]:
    """MB since the start of the machine."""
    network, disk = psutil.net_io_counters(), psutil.disk_io_counters()
    found: dict[str, float] = {}
    if network is not None:
        found["network_in"] = network.bytes_recv / _MB
        found["network_out"] = network.bytes_sent / _MB
    if disk is not None:
        found["disk_read"] = disk.read_bytes / _MB
        found["disk_write"] = disk.write_bytes / _MB
    return found


class _Gpus:
    """NVIDIA GPUs, if there are any and their library is installed."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._handles: list[object] = []
        try:
            nvml = require("pynvml", "gpu")
            nvml.nvmlInit()
            count = nvml.nvmlDeviceGetCount()
            self._handles = [nvml.nvmlDeviceGetHandleByIndex(n) for n in range(count)]
            self._nvml = nvml
        except MissingExtraError:
            _log.info("nvidia-ml-py is not installed: GPUs are not monitored")
        except Exception as error:  # the library's own error, which has no name without it
            _log.info("GPUs cannot be monitored: %s", error)

    def sample(self, host: str) -> list[Sample]:
        nvml = self._nvml
        samples: list[Sample] = []
        for number, handle in enumerate(self._handles):
            name = f"{host} GPU {number}"
            try:
                memory = nvml.nvmlDeviceGetMemoryInfo(handle)
                busy = nvml.nvmlDeviceGetUtilizationRates(handle).gpu
                heat = nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
            except nvml.NVMLError as error:
                self.note(name, error)
                continue
            samples += [
                Sample(name, "gpu", float(busy), "%"),
                Sample(name, "gpu_memory", 100.0 * memory.used / memory.total, "%"),
                Sample(name, "gpu_temperature", float(heat), "C"),
            ]
        return samples

    def note(self, name: str, error: Exception) -> None:
        _log.warning("%s can no longer be monitored: %s", name, error)
        self._handles = []


MONITOR = MonitorKind(
    "system",
    SystemSettings,
    SystemMonitor,
    "CPU, memory, network, disks and GPUs of this machine",
    rank=20,
)
