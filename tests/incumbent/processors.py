"""Processors with the names and arguments of those that the published examples use."""

from __future__ import annotations

from typing import Any

import numpy as np
import pvaccess as pva
from pvapy.hpc.adImageProcessor import AdImageProcessor
from pvapy.utility.adImageUtility import AdImageUtility


class HpcAdImageProcessor(AdImageProcessor):
    """Swaps the axes of images."""

    def __init__(self, configDict: dict[str, Any]) -> None:
        super().__init__(configDict)
        self.n_turned = 0
        self.x = 0

    def configure(self, configDict: dict[str, Any]) -> None:
        self.x = configDict.get("x", 0)

    def process(self, pvObject: Any) -> Any:
        number, image, *_ = self.reshapeNtNdArray(pvObject)
        if image is None:
            return pvObject
        self.logger.debug("turns image %s", number)
        turned = self.replaceNtNdArrayImage2D(pvObject, number, np.swapaxes(image, 0, 1))
        self.updateOutputChannel(turned)
        self.n_turned += 1
        return turned

    def resetStats(self) -> None:
        self.n_turned = 0

    def getStats(self) -> dict[str, Any]:
        return {"nTurned": self.n_turned, "x": self.x}

    def getStatsPvaTypes(self) -> dict[str, Any]:
        return {"nTurned": pva.UINT, "x": pva.INT}


class HpcAdMetadataProcessor(AdImageProcessor):
    """Appends the newest value of each metadata channel as an attribute."""

    def __init__(self, configDict: dict[str, Any]) -> None:
        super().__init__(configDict)
        self.current: dict[str, float] = {}
        self.n_complete = 0

    def process(self, pvObject: Any) -> Any:
        for name, queue in self.metadataQueueMap.items():
            while len(queue):
                self.current[name] = float(queue.get(0)["value"])
        attributes = pvObject["attribute"] if "attribute" in pvObject else []
        for name, value in self.current.items():
            attributes.append(pva.NtAttribute(name, pva.PvFloat(value)))
        pvObject["attribute"] = attributes
        self.updateOutputChannel(pvObject)
        self.n_complete += len(self.current) == len(self.metadataQueueMap)
        return pvObject

    def getStats(self) -> dict[str, Any]:
        return {"nComplete": self.n_complete}

    def getStatsPvaTypes(self) -> dict[str, Any]:
        return {"nComplete": pva.UINT}


TILE = {"tileIndexX": pva.INT, "tileIndexY": pva.INT}


class SplitAdImageProcessor(AdImageProcessor):
    """Publishes an image as tiles of (ny, nx) pixels, all with the id of the image."""

    def __init__(self, configDict: dict[str, Any]) -> None:
        super().__init__(configDict)
        self.nx, self.ny = configDict["nx"], configDict["ny"]

    def process(self, pvObject: Any) -> Any:
        number, image, *_ = self.reshapeNtNdArray(pvObject)
        if image is None:
            return pvObject
        for row in range(image.shape[0] // self.ny):
            for column in range(image.shape[1] // self.nx):
                place = pva.PvObject(TILE, {"tileIndexX": row, "tileIndexY": column})
                y, x = row * self.ny, column * self.nx
                tile = np.ascontiguousarray(image[y : y + self.ny, x : x + self.nx])
                self.updateOutputChannel(
                    AdImageUtility.generateNtNdArray2D(number, tile, extraFieldsPvObject=place)
                )
        return pvObject

    def getOutputPvObjectType(self, pvObject: Any) -> Any:
        return pva.NtNdArray(TILE)


class StitchAdImageProcessor(AdImageProcessor):
    """Publishes the image of (ny, nx) pixels when all of its tiles are there."""

    def __init__(self, configDict: dict[str, Any]) -> None:
        super().__init__(configDict)
        self.nx, self.ny = configDict["nx"], configDict["ny"]
        self.tiles: dict[int, dict[tuple[int, int], Any]] = {}

    def process(self, pvObject: Any) -> Any:
        number, tile, nx, ny, *_ = self.reshapeNtNdArray(pvObject)
        if tile is None:
            return pvObject
        tiles = self.tiles.setdefault(number, {})
        tiles[pvObject["tileIndexX"], pvObject["tileIndexY"]] = tile
        rows, columns = range(self.ny // ny), range(self.nx // nx)
        if len(tiles) == len(rows) * len(columns):
            image = np.block([[tiles[row, column] for column in columns] for row in rows])
            self.updateOutputChannel(AdImageUtility.generateNtNdArray2D(number, image))
            del self.tiles[number]
        return pvObject

    def getOutputPvObjectType(self, pvObject: Any) -> Any:
        return pva.NtNdArray()
