"""What ``TiledSink`` does without Tiled; with it, see ``test_tiled_live.py``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pvapy_stream.errors import MissingExtraError, SettingsError
from pvapy_stream.processors import TiledSink
from pvapy_stream.processors.tiled_sink import _ascending

URI = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, "uri"),
        ({"uri": "tiled"}, "such as http://host:8000"),
        ({"uri": "ftp://host"}, "such as http://host:8000"),
        ({"uri": URI, "name": "a/b"}, "letters, digits"),
        ({"uri": URI, "batchFrames": 0}, "batchFrames"),
        ({"uri": URI, "batchMB": -1}, "batchMB"),
        ({"uri": URI, "drainTimeout": 60}, "drainTimeout"),
        ({"uri": URI, "apiKey": "k"}, "unknown key 'apiKey'"),
    ],
)
def test_wrong_options(args: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        TiledSink(args)


@pytest.mark.parametrize("uri", ["http://h:8000?api_key=5ecret", "http://user:5ecret@h:8000"])
def test_a_key_in_the_address_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(SettingsError, match="list of processes") as caught:
        TiledSink({"uri": uri})
    assert "5ecret" not in str(caught.value)


def test_a_key_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TILED_API_KEY", raising=False)
    with pytest.raises(SettingsError, match="set TILED_API_KEY, or give apiKeyFile"):
        TiledSink({"uri": URI}).start()
    with pytest.raises(SettingsError, match=r"none cannot be read"):
        TiledSink({"uri": URI, "apiKeyFile": str(tmp_path / "none")}).start()
    (tmp_path / "empty").touch()
    with pytest.raises(SettingsError, match="there is no API key"):
        TiledSink({"uri": URI, "apiKeyFile": str(tmp_path / "empty")}).start()


def test_without_tiled_the_error_names_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILED_API_KEY", "k")
    # Also where it is installed.
    monkeypatch.setitem(sys.modules, "tiled.client", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'pvapy-stream\[tiled\]'"):
        TiledSink({"uri": URI}).start()


def test_tiled_is_imported_when_it_is_used() -> None:
    code = (
        "import sys; from pvapy_stream.processors import TiledSink;"
        f"TiledSink({{'uri': {URI!r}}}); print([m for m in sys.modules if m[:5] == 'tiled'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"


def test_configure_changes_batches_only() -> None:
    sink = TiledSink({"uri": URI})
    sink.configure({"batchFrames": 3, "retryTime": 1, "skipInitialUpdates": 1})
    assert (sink.options.batch_frames, sink.options.retry_time) == (3, 1)
    with pytest.raises(SettingsError, match="uri cannot be changed; configure changes batchFrames"):
        sink.configure({"uri": "http://other", "batchFrames": 4})
    assert sink.options.batch_frames == 3


def test_ids_that_start_again_are_told_apart() -> None:
    assert [list(one) for one in _ascending([8, 9, 1, 2, 2, 7])] == [[8, 9], [1, 2], [2, 7]]
    assert _ascending([]) == []
