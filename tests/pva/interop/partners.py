"""Partners of other make, each in a process: its arguments are make, role and prefix of channels.

Commands and answers are lines of JSON: a method's name and its arguments, and what it returns.
"""

from __future__ import annotations

import contextlib
import json
import queue
import sys
from collections import defaultdict
from typing import Any

from tests.pva.interop.catalogue import CASES, channel_name, plain, shown_by

WAIT = 60.0  # s
WHOLE = "record[queueSize=50]field()"
FIXED = "fixed"  # channel that takes no puts


class Partner:
    """Keeps what comes, by channel, until it is taken.

    Args:
        prefix: of the names of the channels.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.came: defaultdict[str, queue.Queue[Any]] = defaultdict(queue.Queue)
        self.kept: list[Any] = []

    def take(self, name: str) -> Any:
        """The next value of a channel."""
        return self.came[name].get(timeout=WAIT)

    @staticmethod
    def key(name: str, request: str) -> str:
        """What is given to `take` for a monitor."""
        return name if request == WHOLE else f"{name} {request}"

    def name(self, case: str) -> str:
        return channel_name(self.prefix, case)


def p4p_client(prefix: str) -> Partner:
    from p4p.client.thread import Context, Disconnected

    context = Context("pva", nt=False)

    class Client(Partner):
        def follow(self, name: str, request: str) -> str:
            came = self.came[self.key(name, request)]

            def keep(value: Any) -> None:
                if not isinstance(value, Disconnected):
                    came.put(repr(value) if isinstance(value, Exception) else plain(value))

            with contextlib.suppress(Disconnected):
                self.kept.append(context.monitor(name, keep, request=request))
            return ""

        def get(self, name: str, request: str) -> Any:
            return plain(context.get(name, request=request, timeout=WAIT))

        def copy(self, name: str) -> str:
            """Put what it gets; the error, or ""."""
            return self.put(name, context.get(name, timeout=WAIT))

        def put(self, name: str, value: Any) -> str:
            try:
                context.put(name, value, timeout=WAIT, get=False)
            except Exception as error:
                return str(error)
            return ""

    return Client(prefix)


def p4p_type(kind: Any, name: str = "") -> Any:
    """A type, as p4p describes it."""
    from pvapy_stream.pva.wire.types import (
        CODES,
        Array,
        ArrayOf,
        Kind,
        Scalar,
        Structure,
        Union,
    )

    match kind:
        case Scalar() | Array():
            code = {Kind.BOOLEAN: "?", Kind.STRING: "s", **CODES}[kind.kind]
            code = code.translate(str.maketrans("qQ", "lL"))
            return code if isinstance(kind, Scalar) else "a" + code
        case Structure():
            return "S", kind.id or None, [(n, p4p_type(inner)) for n, inner in kind.fields]
        case Union():
            return "U", kind.id or None, [(n, p4p_type(inner)) for n, inner in kind.choices]
        case ArrayOf():
            inner = p4p_type(kind.element)
            return "av" if inner == "v" else (f"a{inner[0]}", *inner[1:])
        case _:
            return "v"


def p4p_server(prefix: str) -> Partner:
    from p4p import Type, Value
    from p4p.server import Server, StaticProvider
    from p4p.server.thread import SharedPV

    partner = Partner(prefix)
    provider = StaticProvider("interop")
    for case in shown_by("p4p"):
        name, kind = partner.name(case), CASES[case].kind
        fields = [(n, p4p_type(inner)) for n, inner in kind.fields]
        pv = SharedPV(initial=Value(Type(fields, kind.id)))

        @pv.put
        def put(pv: Any, operation: Any, name: str = name) -> None:
            partner.came[name].put(plain(operation.value()))
            pv.post(operation.value())
            operation.done()

        provider.add(name, pv)
        # The provider refers to it weakly.
        partner.kept.append(pv)
    partner.kept.append(Server(providers=[provider]))
    return partner


def pvapy_value(obj: Any) -> Any:
    """What an object of pvapy holds."""
    try:
        return _of_pvapy(obj.toDict(), obj.getStructureDict())
    except UnicodeDecodeError as error:
        # It takes negative signed bytes for text.
        return {"value": error.object[0] - 256, "after": obj["after"]}


def _of_pvapy(value: Any, kind: Any) -> Any:
    """Unions are tuples of a dict of the value and of one of its type, signed bytes characters."""
    import pvaccess as pva

    if isinstance(value, tuple):
        if not value or not value[0]:
            return None
        ((name, inner),) = value[0].items()
        return _of_pvapy(inner, value[1][name])
    if isinstance(value, dict):
        return {name: _of_pvapy(inner, kind[name]) for name, inner in value.items()}
    if isinstance(value, list):
        return plain([_of_pvapy(one, kind[0]) for one in value])
    return ord(value) if kind == pva.BYTE else plain(value)


def pvapy_client(prefix: str) -> Partner:
    import pvaccess as pva

    channels: dict[str, Any] = {}

    def channel_of(name: str) -> Any:
        if name not in channels:
            channels[name] = pva.Channel(name)
            channels[name].setTimeout(WAIT)
        return channels[name]

    class Client(Partner):
        def follow(self, name: str, request: str) -> str:
            # A channel has one monitor.
            channel = pva.Channel(name) if request != WHOLE else channel_of(name)
            came = self.came[self.key(name, request)]
            channel.monitor(lambda obj: came.put(pvapy_value(obj)), request)
            self.kept.append(channel)
            return ""

        def get(self, name: str, request: str) -> Any:
            return pvapy_value(channel_of(name).get(request))

        def copy(self, name: str) -> str:
            try:
                channel_of(name).put(channel_of(name).get("field()"), "")
            except pva.PvaException as error:
                return str(error)
            return ""

    return Client(prefix)


def pvapy_server(prefix: str) -> Partner:
    import pvaccess as pva

    from pvapy_stream.pva.convert import blank_object

    partner = Partner(prefix)
    server = pva.PvaServer()
    for case in CASES:
        name, kind = partner.name(case), CASES[case].kind
        if case not in shown_by("pvaccesscpp"):
            continue

        def keep(obj: Any, name: str = name, shown: bool = case in shown_by("pvapy")) -> None:
            partner.came[name].put(pvapy_value(obj) if shown else None)

        server.addRecord(name, blank_object(kind), keep)
    server.start()
    partner.kept.append(server)
    return partner


def fields_of(request: str) -> list[str]:
    """The fields of a request."""
    return [one for one in request.partition("(")[2].rstrip(")").split(",") if one]


def spvirit_client(prefix: str) -> Partner:
    import os

    import spvirit

    client = (
        spvirit.Client.builder()
        .search_addr("127.0.0.1")
        .udp_port(int(os.environ["EPICS_PVA_BROADCAST_PORT"]))
        .timeout(WAIT)
        .build()
    )

    class Client(Partner):
        def follow(self, name: str, request: str) -> str:
            came = self.came[self.key(name, request)]

            def keep(update: Any) -> None:
                came.put(plain(update.value))

            self.kept.append(client.subscribe(name, keep, fields=fields_of(request)))
            return ""

        def get(self, name: str, request: str) -> Any:
            return plain(client.get(name, fields=fields_of(request)).value)

    return Client(prefix)


def as_list(value: Any) -> Any:
    """An array of numpy as a list."""
    return value.tolist() if hasattr(value, "tolist") else value


def spvirit_server(prefix: str) -> Partner:
    import os

    import spvirit

    pvs: dict[str, Any] = {}

    class Server(Partner):
        def post(self, case: str, number: int) -> str:
            value = CASES[case].values[number]
            pvs[case].set(as_list(value))
            return ""

    partner = Server(prefix)
    for case in shown_by("spvirit"):
        kind, _, array = case.partition("[")
        # Arrays become no longer than they were at first.
        first = CASES[case].values[-1]
        pvs[case] = (
            spvirit.aao(partner.name(case), as_list(first), type=kind)
            if array
            else spvirit.scalar(partner.name(case), first, type=kind, writable=True)
        )
    # A port of its own for searches: it does not pass them on to the other servers of the host.
    server = spvirit.Server(
        pvs=list(pvs.values()),
        port=0,
        udp_port=int(os.environ["SPVIRIT_PORT"]),
        listen_ip="127.0.0.1",
        advertise_ip="127.0.0.1",
    )
    server.start()
    partner.kept.append(server)
    return partner


def main(make: str, role: str, prefix: str) -> None:
    partner = globals()[f"{make}_{role}"](prefix)

    def tell(what: Any) -> None:
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()

    tell("up")
    for line in sys.stdin:
        name, *args = json.loads(line)
        try:
            tell(getattr(partner, name)(*args))
        except Exception as error:
            tell({"error": repr(error)})


if __name__ == "__main__":
    main(*sys.argv[1:])
