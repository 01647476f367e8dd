"""Writes frames to HDF5/NeXus files and passes them on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pvaccess as pva

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.errors import SettingsError
from pvapy_stream.files.folder import check_requested, fixed_folder
from pvapy_stream.files.names import FileNames
from pvapy_stream.files.nexus import FrameWriter
from pvapy_stream.files.run_name import run_id
from pvapy_stream.frame import Frame
from pvapy_stream.hpc.processor import FrameProcessor
from pvapy_stream.settings import FileSettings

__all__ = ["Hdf5Writer"]

# Keys of the configuration, the settings they are, and what is meant without them.
_KEYS = {
    "nImagesPerFile": ("images_per_file", 1000),
    "datasetName": ("dataset_name", "images"),
    "compression": ("compression", "none"),
    "overwrite": ("overwrite", False),
    "nThreads": ("n_threads", 2),
}
_DIRECTORY = "outputDirectory"
_NAME = "outputFileNameFormat"
_DEFAULT_NAME = "{outputFileId:06}.{processorId}.hdf"


class Hdf5Writer(FrameProcessor):
    """Writes each frame to a file, and passes it on.

    Keys of the configuration: `outputDirectory` [.], `outputFileNameFormat`
    [{outputFileId:06}.{processorId}.hdf], `nImagesPerFile` [1000; 0: all in one file],
    `datasetName` [images; a link to /entry/data/data], `compression` [none; lz4, bslz4, zstd,
    blosc], `overwrite` [false], `nThreads` [2].

    `overwrite` replaces plain files that existed before the run. Files of the run are never
    replaced, also not after a restart or a reload: the next file gets the next number.

    A `configure` command may choose a name below the folder that was given at the start; it cannot
    replace files.

    Raises:
        SettingsError: a wrong value, or a name format that gives two files the same name.
    """

    # An id counts as processed when it has been flushed, see `late_failures.done`.
    confirms = True

    def __init__(self, configDict: dict[str, Any] | None = None) -> None:
        super().__init__(configDict)
        config = configDict or {}
        self._config: dict[str, Any] = {key: default for key, (_, default) in _KEYS.items()} | {
            _DIRECTORY: ".",
            _NAME: _DEFAULT_NAME,
        }
        self._number = int(config.get("processorId") or 1)
        self._settings = self._merged(config)
        self._root = fixed_folder(self._settings.output)
        # Where files may be, once somebody else than who gave the command has chosen their names.
        self._limit: Path | None = None
        self._writer: FrameWriter | None = None
        # Of writers that `configure` replaced, less what `resetStats` took off.
        self._past = [0, 0, 0]
        self._last_file = ""

    def _merged(self, config: dict[str, Any]) -> FileSettings:
        """Settings with some keys changed.

        Raises:
            SettingsError: naming the wrong key.
        """
        values = {key: config.get(key, old) for key, old in self._config.items()}
        try:
            settings = FileSettings.of(
                output=str(Path(str(values[_DIRECTORY])) / str(values[_NAME])),
                **{name: values[key] for key, (name, _) in _KEYS.items()},
            )
        except SettingsError as error:
            raise SettingsError(f"Hdf5Writer: {error}") from error
        FileNames(settings.output, self._number, settings.images_per_file > 0)
        self._config = values
        return settings

    def start(self) -> None:
        """Check whether files can be written.

        Raises:
            FileError: they cannot.
        """
        self._number = self.processorId or self._number
        self._writer = self._open()

    def _open(self, first_file_id: int = 1) -> FrameWriter:
        return FrameWriter(
            self._settings,
            self._number,
            self._ledger,
            first_file_id,
            run=run_id(),
            folder=self._limit,
            on_saved=self._saved,
            on_lost=self._lost,
        )

    @property
    def output_files(self) -> str:
        """Name pattern of its files."""
        return self._settings.output

    def _saved(self, ids: IdSet) -> None:
        self.late_failures.done(ids)

    def _lost(self, ids: IdSet, kind: str, message: str) -> None:
        for frame_id in ids:
            self.late_failures.note(frame_id, kind, message)

    def _ledger(self) -> Ledger | None:
        return None if self.account is None else self.account()

    def process_frame(self, frame: Frame) -> Frame:
        if self._writer is None:
            self._writer = self._open()
        self._writer.write(frame)
        return frame

    def configure(self, configDict: Any) -> None:
        """Close the file and continue with other settings; keys that are not given are unchanged.

        Raises:
            SettingsError: a wrong value, or a name that is not below the folder of the start.
            FileError: the file cannot be closed, or new ones not be written.
        """
        if not isinstance(configDict, dict) or not ({*self._config} & {*configDict}):
            return
        before = dict(self._config)
        settings = self._merged(configDict)
        try:
            settings = self._within_limits(configDict, settings)
        except SettingsError:
            self._config = before
            raise
        old, self._settings = self._writer, settings
        if old is not None:
            self._writer = None
            try:
                old.close()
            finally:
                self._note(old)
                self._writer = self._open(old.next_file_id)

    def _within_limits(self, given: Mapping[str, object], settings: FileSettings) -> FileSettings:
        """Settings as a request may have them.

        Raises:
            SettingsError: it asks for more than it may.
        """
        if settings.overwrite and given.get("overwrite"):
            raise SettingsError(
                "Hdf5Writer: overwrite cannot be set by configure, only where the writer is"
                " started; choose another name"
            )
        if not {_DIRECTORY, _NAME} & {*given}:
            return settings
        check_requested(settings.output, self._root)
        self._limit = self._root
        self._config["overwrite"] = False
        return settings.replace(overwrite=False)

    def stop(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _note(self, writer: FrameWriter) -> None:
        for at, value in enumerate((writer.n_files, writer.n_images, writer.n_bytes)):
            self._past[at] += value
        if writer.files:
            self._last_file = str(writer.files[-1])

    def _totals(self) -> list[int]:
        writer = self._writer
        now = (writer.n_files, writer.n_images, writer.n_bytes) if writer else (0, 0, 0)
        return [past + value for past, value in zip(self._past, now, strict=True)]

    def resetStats(self) -> None:
        self._past = [past - total for past, total in zip(self._past, self._totals(), strict=True)]

    def getStats(self) -> dict[str, Any]:
        files, images, size = (max(0, total) for total in self._totals())
        writer = self._writer
        return {
            "nFilesSaved": files,
            "nImagesSaved": images,
            "nBytesSaved": size,
            "lastFilePath": str(writer.files[-1]) if writer and writer.files else self._last_file,
        }

    def getStatsPvaTypes(self) -> dict[str, object]:
        return {
            "nFilesSaved": pva.UINT,
            "nImagesSaved": pva.ULONG,
            "nBytesSaved": pva.ULONG,
            "lastFilePath": pva.STRING,
        }
