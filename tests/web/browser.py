"""A headless Chromium, if this machine has one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)

needs_chromium = pytest.mark.skipif(
    not CHROMIUM, reason="no Chromium on this machine; install it with: apt-get install chromium"
)

_ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync"
).split()


@contextmanager
def page(*, offline: bool = False, **options: Any) -> Iterator[Any]:
    """A page; what went wrong on it is in its attribute `problems`, and must be nothing."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        try:
            context = browser.new_context(offline=offline, **options)
            made = context.new_page()
            made.set_default_timeout(15_000)
            made.problems = []
            made.on("pageerror", lambda error: made.problems.append(str(error)))
            made.on(
                "console",
                lambda m: made.problems.append(m.text) if m.type == "error" else None,
            )
            yield made
        finally:
            browser.close()


def overflow(shown: Any) -> int:
    """How far a page is wider than its window, pixels."""
    root = "document.documentElement"
    return shown.evaluate(f"{root}.scrollWidth - {root}.clientWidth")
