"""Encryption of objects: keys and envelopes. Bytes in, bytes out; no EPICS."""
