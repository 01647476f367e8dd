from __future__ import annotations

import subprocess
import sys

from pvapy_stream import processors


def test_files_name_their_processors() -> None:
    assert processors.__all__ == [
        "AdImageDecryptor", "AdImageEncryptor", "AverageFrames", "Binning", "DataDecryptor",
        "DataEncryptor", "Hdf5Writer", "ImageFileWriter", "MetadataAssociator", "PassThrough",
        "Region", "StreamRecorder", "SumFrames", "ThresholdCount", "TileSplitter", "TileStitcher",
        "TiledSink", "Transpose", "UserMpWorkerPool",
    ]  # fmt: skip
    assert [name for name in processors.__all__ if not hasattr(processors, name)] == []


def test_no_file_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys; from pvapy_stream import processors; processors.Transpose;"
        "print(sorted(m for m in sys.modules if m.startswith('pvapy_stream.processors.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "['pvapy_stream.processors.transpose']\n"
