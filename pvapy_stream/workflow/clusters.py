"""Where programs run, by the words of a command line."""

from __future__ import annotations

from pvapy_stream.errors import SettingsError
from pvapy_stream.hpc.launch.programs import Launcher, LocalPrograms


def make_launcher(cluster: str) -> Launcher:
    """A launcher for ``local``.

    Raises:
        SettingsError: the words mean nothing.
    """
    if cluster == "local":
        return LocalPrograms()
    raise SettingsError(f"--cluster {cluster!r} is not known; give local")
