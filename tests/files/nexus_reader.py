"""Opens a file with the nexusformat of another environment; prints what it would plot, as JSON."""

from __future__ import annotations

import json
import sys

import hdf5plugin  # noqa: F401 - reads the chunks
import nexusformat.nexus as nx

root = nx.nxload(sys.argv[1])
data = root.plottable_data
signal = data.nxsignal
sys.stdout.write(
    json.dumps(
        {
            "path": signal.nxpath,
            "shape": signal.shape,
            "axes": {axis.nxname: axis.nxvalue.tolist() for axis in data.nxaxes},
            "pixels": [signal[row].nxvalue.tolist() for row in range(signal.shape[0])],
        }
    )
)
