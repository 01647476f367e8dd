"""Processors written for the incumbent run unchanged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pvapy.utility.adImageUtility import AdImageUtility

from tests.support import (
    Commands,
    Source,
    command,
    get,
    status,
    wait_for_monitors,
    wait_until,
    write_processor,
)

IMAGE_PROCESSOR = """
import numpy as np
from pvapy.hpc.adImageProcessor import AdImageProcessor
import pvaccess as pva

class Turn(AdImageProcessor):
    def __init__(self, configDict={}):
        super().__init__(configDict)
        self.k = configDict.get('k', 1)
        self.n = 0
        self.seen = (configDict['processorId'], configDict['inputChannel'])
    def start(self):
        self.started = (self.processorId, self.outputChannel, self.objectIdField)
        assert self.pvaServer is not None
    def configure(self, configDict):
        self.k = configDict['k']
    def process(self, pvObject):
        (i, image, nx, ny, nz, mode, key) = self.reshapeNtNdArray(pvObject)
        out = self.generateNtNdArray2D(i, np.rot90(image, self.k))
        self.updateOutputChannel(out)
        self.n += 1
        return out
    def resetStats(self):
        self.n = 0
    def getStats(self):
        return {'n': self.n, 'who': self.started[0]}
    def getStatsPvaTypes(self):
        return {'n': pva.UINT, 'who': pva.INT}
"""

GENERAL_PROCESSOR = """
from pvapy.hpc.userDataProcessor import UserDataProcessor
import pvaccess as pva

class Sum(UserDataProcessor):
    def getOutputPvObjectType(self, pvObject):
        return pva.PvObject({'uniqueId': pva.INT, 'sum': pva.DOUBLE})
    def process(self, pvObject):
        total = float(pvObject['value'][0]['ushortValue'].sum())
        out = self.getOutputPvObjectType(pvObject)
        out.set({'uniqueId': pvObject['uniqueId'], 'sum': total})
        self.updateOutputChannel(out)
        return pvObject
"""


def test_an_image_processor_with_all_its_methods(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    file = write_processor(tmp_path, IMAGE_PROCESSOR)
    program = commands(
        "consumer", "-id", "7", "-ic", source.channel, "-oc", f"{prefix}out:*", "-sc",
        f"{prefix}status:*", "-cc", f"{prefix}control:*",
        "-pf", file, "-pc", "Turn", "-pa", '{"k": 2}', "-sqs", "100",
    )  # fmt: skip
    wait_for_monitors([f"{prefix}status:7"])
    source.publish(range(1, 11))
    wait_until(lambda: status(f"{prefix}status:7")["userStats"]["n"] == 10)
    assert status(f"{prefix}status:7")["userStats"]["who"] == 7
    out = get(f"{prefix}out:7")
    assert out["uniqueId"] == 10
    sent = np.arange(24, dtype=np.uint16).reshape(4, 6) + 10
    assert np.array_equal(out["value"][0]["ushortValue"].reshape(4, 6), np.rot90(sent, 2))
    assert command(f"{prefix}control:7", "configure", '{"k": 1}') == "Configuration successful"
    source.publish([11])
    wait_until(lambda: get(f"{prefix}out:7", "uniqueId") == 11)
    assert [d["size"] for d in get(f"{prefix}out:7", "dimension")] == [4, 6]
    assert command(f"{prefix}control:7", "reset_stats") == "Stats reset successful"
    assert status(f"{prefix}status:7")["userStats"]["n"] == 0
    program.signal()
    assert program.wait() == 0, program.text


def test_a_general_processor_with_a_structure_of_its_own(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    file = write_processor(tmp_path, GENERAL_PROCESSOR)
    program = commands(
        "consumer",
        "-ic",
        source.channel,
        "-oc",
        f"{prefix}out",
        "-sc",
        f"{prefix}status",
        "-pf",
        file,
        "-pc",
        "Sum",
        "-sqs",
        "100",
    )
    wait_for_monitors([f"{prefix}status"])
    source.publish(range(1, 4))
    out = wait_until(lambda: (o := get(f"{prefix}out")) and o["uniqueId"] == 3 and o)
    assert out["sum"] == float((np.arange(24) + 3).sum())
    program.signal()
    assert program.wait() == 0, program.text


def test_the_incumbents_helpers_read_what_we_publish(prefix: str, source: Source) -> None:
    import pvaccess as pva

    source.publish([5])
    number, image, nx, ny, _, mode, key = AdImageUtility.reshapeNtNdArray(
        pva.Channel(source.channel).get("field()")
    )
    assert (number, nx, ny, mode, key) == (5, 6, 4, 0, "ushortValue")
    assert np.array_equal(image, np.arange(24, dtype=np.uint16).reshape(4, 6) + 5)
