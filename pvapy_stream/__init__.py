"""Distributed, real-time streaming of detector data over EPICS PVAccess."""

__version__ = "0.1.0"
