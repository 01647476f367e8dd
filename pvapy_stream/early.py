"""What programs of this package do before they import the rest of it; done by importing this."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


def _interrupt_quietly() -> None:
    """Let Ctrl-C end a program that still imports, without a traceback.

    Only in our own programs: who imports the package keeps what he has. `run_until_signal`, and
    `cli.exit_codes.exit_code`, take signals in their own way later.
    """
    ours = is_program() and threading.current_thread() is threading.main_thread()
    if ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _import_quickly() -> None:
    """Leave out what makes the start of our own programs longer and serves nothing."""
    if is_program():
        # Importing makes hundreds of thousands of objects and no garbage; see `collect_garbage`,
        # which spawned processes do not call.
        if "--multiprocessing-fork" not in sys.orig_argv:
            gc.disable()
        # Looking for plugins of pydantic, which our settings do not use, reads the metadata of all
        # that is installed. Who wants them in a processor sets the variable, also to nothing.
        os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


def collect_garbage() -> None:
    """Collect garbage from now on, but never look through what our program has imported."""
    if is_program() and not gc.isenabled():
        gc.freeze()
        gc.enable()


@contextmanager
def importing() -> Iterator[None]:
    """Import, in the block, as our own programs do before `collect_garbage`."""
    if not is_program() or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        collect_garbage()


def is_program() -> bool:
    """Whether this process is one of our programs, and not one that imports the package."""
    words = getattr(sys, "argv", None) or [""]
    if words[0] == "-m":
        # A module that does not run yet: this package is imported first.
        return any(map(_is_ours, sys.orig_argv))
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is not None:
        return _is_ours(spec.name)
    return os.path.basename(words[0]).startswith(("pvapy-", "sf_bsread_"))


def _is_ours(module: str) -> bool:
    return module in ("pvapy_stream", "pvapy_stream.__main__") or module.startswith(
        "pvapy_stream.cli."
    )


_interrupt_quietly()
_import_quickly()
