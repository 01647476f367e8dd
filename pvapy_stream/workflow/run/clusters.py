"""Where programs run, by the words of a command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pvapy_stream.errors import SettingsError
from pvapy_stream.launch.dask import DaskPrograms, connect
from pvapy_stream.launch.programs import Launcher, LocalPrograms
from pvapy_stream.plugins import require


def make_launcher(cluster: str) -> Launcher:
    """A launcher for ``local``, the address of a Dask scheduler, or a file that describes one.

    Raises:
        SettingsError: the words mean nothing, or the file is wrong.
        WorkflowError: the scheduler does not answer.
        MissingExtraError: the libraries for clusters are not installed.
    """
    if cluster == "local":
        return LocalPrograms()
    if "://" in cluster:
        return DaskPrograms(connect(cluster), cluster)
    if cluster.endswith((".yaml", ".yml")):
        return _from_file(Path(cluster))
    raise SettingsError(
        f"--cluster {cluster!r} is not known; give local, tcp://HOST:PORT or a YAML file"
    )


def _from_file(path: Path) -> DaskPrograms:
    """A cluster from a file: its class, how many jobs, and the options of the class.

    class: dask_jobqueue.SLURMCluster
    jobs: 10
    cores: 8
    memory: 32 GB
    """
    try:
        options: dict[str, Any] = dict(yaml.safe_load(path.read_text()))
        module, _, name = str(options.pop("class")).rpartition(".")
        jobs = int(options.pop("jobs"))
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        raise SettingsError(
            f"{path} does not describe a cluster ({error}); it needs class: and jobs:, then the"
            " options of the class"
        ) from error
    kind = getattr(require(module, "dask"), name, None)
    if kind is None:
        raise SettingsError(f"{path}: {module} has no {name}")
    try:
        made = kind(**options)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{path}: {name}: {error}") from error
    made.scale(jobs)
    address = str(made.scheduler_address)
    return DaskPrograms(connect(address), address, made.close)
