"""A PVAccess server and client on our own sockets.

- `server.Server`: one thread with a selector; TCP, UDP, and what is called from other threads;
- `server_channel.Channel`: a structure that clients get, monitor and put to;
- `connection.Connection`, `requests`: what each client asks for;
- `client.Client`: one thread with a selector, which searches (`client_search`) and connects;
- `client_channel.ClientChannel`: a channel of another program, with get, put, call, and its type;
- `server_link`, `client_requests`: the connection that channels share, and requests on a channel;
- `loop.Loop`, `base_link.Link`: thread and TCP connection of either side;
- `datagrams`: searches and beacons beside the other servers of the host;
- `questions`, `client_beacons`: searches as a client sends them, and beacons as it receives them;
- `local_group`, `heard`: the multicast group of a host, and which beacons are news;
- `environment`: the variables ``EPICS_PVAS_*`` and ``EPICS_PVA_*``.
"""
