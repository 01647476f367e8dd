"""The PVAccess protocol without input and output: bytes in, messages out, and back.

Written from the published specification of the protocol (EPICS V4 PVAccess) and from what other
implementations send. Needs numpy only. A connection uses

- `stream.Assembler`: cuts received bytes into messages and joins segments;
- `buffers.Reader`, `buffers.Writer`: values of either byte order, without copies of large arrays;
- `types`: type descriptions, and their registries, one a direction of a connection;
- `values`, `changes`: values of each type, whole or with the bit set of what changed;
- `connecting`, `searching`, `operations`: the messages;
- `request`: which fields and options a client asks for (pvRequest).

All that is malformed raises `pvapy_stream.errors.WireError`. Limits (`limits.Limits`) are checked
before memory is taken.
"""
