"""A TCP proxy before a PVA server, which can cut connections and stall them.

Clients find the server by it, as name server (EPICS_PVA_NAME_SERVERS): searches come by one port,
and are answered with what the server answers, but with the proxy's other port in the place of the
server's. Only connections to that other port are cut and stalled, as clients look only now and then
whether a name server has come back.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
from collections.abc import Coroutine
from typing import Any

_HOST = "127.0.0.1"
_HEADER = 8
_CONTROL, _SEGMENTS, _BIG_ENDIAN = 0x01, 0x30, 0x80
_SEARCH_RESPONSE = 4
_PORT_AT = 12 + 4 + 16  # of a search response: after GUID, sequence and address
_CHUNK = 65536


class Proxy:
    """Runs in a thread of its own.

    Args:
        search_port: where it listens to searches.
        port: where it listens to all else.
        server_port: where the server listens.
    """

    def __init__(self, search_port: int, port: int, server_port: int) -> None:
        self.search_port = search_port
        self._port = port
        self._server_port = server_port
        self._loop = asyncio.new_event_loop()
        self._flows = asyncio.Event()
        self._refuses = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._ready = threading.Event()
        self._thread.start()
        self._ready.wait(10)

    def cut(self) -> None:
        """Close all connections, and take no new ones until `mend`."""
        self._loop.call_soon_threadsafe(self._cut)

    def stall(self) -> None:
        """Pass on nothing until `mend`; connections stay."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def mend(self) -> None:
        """Pass on everything again."""
        self._loop.call_soon_threadsafe(self._mend)

    def close(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._flows.set()
        servers = [
            self._loop.run_until_complete(asyncio.start_server(serve, _HOST, port))
            for serve, port in (
                (self._serve_searches, self.search_port),
                (self._serve, self._port),
            )
        ]
        self._ready.set()
        self._loop.run_forever()
        for server in servers:
            server.close()
        self._cut()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    def _cut(self) -> None:
        self._refuses = True
        for writer in self._writers:
            writer.transport.abort()

    def _mend(self) -> None:
        self._refuses = False
        self._flows.set()

    async def _serve_searches(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            there, to = await asyncio.open_connection(_HOST, self._server_port)
            await _until_one_ends(_pass_on(reader, to), self._answer(there, writer))
            to.transport.abort()
        writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._refuses:
            with contextlib.suppress(OSError):
                there, to = await asyncio.open_connection(_HOST, self._server_port)
                self._writers |= {writer, to}
                await _until_one_ends(
                    _pass_on(reader, to, self._flows), _pass_on(there, writer, self._flows)
                )
                self._writers -= {writer, to}
                to.transport.abort()
        writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on messages of the server, with our port in its answers to searches."""
        while True:
            header = await reader.readexactly(_HEADER)
            flags, command = header[2], header[3]
            order = ">" if flags & _BIG_ENDIAN else "<"
            size = 0 if flags & _CONTROL else struct.unpack_from(f"{order}I", header, 4)[0]
            payload = bytearray(await reader.readexactly(size))
            if command == _SEARCH_RESPONSE and not flags & (_CONTROL | _SEGMENTS):
                if len(payload) >= _PORT_AT + 2:
                    struct.pack_into(f"{order}H", payload, _PORT_AT, self._port)
            writer.write(header + payload)
            await writer.drain()


async def _pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flows: asyncio.Event | None = None
) -> None:
    while chunk := await reader.read(_CHUNK):
        if flows is not None:
            await flows.wait()
        writer.write(chunk)
        await writer.drain()


async def _until_one_ends(*both: Coroutine[Any, Any, None]) -> None:
    """Run both until one ends, by a closed connection for instance."""
    tasks = [asyncio.ensure_future(one) for one in both]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
