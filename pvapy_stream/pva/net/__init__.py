"""A PVAccess server on our own sockets.

- `server.Server`: one thread with a selector; TCP, UDP, and what is called from other threads;
- `channel.Channel`: a structure that clients get, monitor and put to;
- `connection.Connection`, `requests`: what each client asks for;
- `datagrams`: searches and beacons beside the other servers of the host;
- `environment`: the variables ``EPICS_PVAS_*`` and ``EPICS_PVA_*``.
"""
