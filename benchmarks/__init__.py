"""Benchmarks: pvapy's own framework and this package side by side. Run `make bench`."""

from __future__ import annotations

import os

# Loopback only, also when run without make; must be set before the binding makes its first client.
for _name, _value in {
    "EPICS_PVA_ADDR_LIST": "127.0.0.1",
    "EPICS_PVA_AUTO_ADDR_LIST": "NO",
    "EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1",
    "EPICS_PVAS_BEACON_ADDR_LIST": "127.0.0.1",
    "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
}.items():
    os.environ.setdefault(_name, _value)
