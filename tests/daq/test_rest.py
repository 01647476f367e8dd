from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

from pvapy_stream.daq.rest import build_app
from pvapy_stream.daq.web import WebThread
from pvapy_stream.daq.writer import REQUIRED, AcquisitionWriter
from pvapy_stream.settings import WriterSettings
from tests.daq.sending import Pulses, Rest, rows
from tests.support import rounds, wait_until

GENERAL = dict.fromkeys(REQUIRED, "given")
Serve = Callable[..., Rest]


@pytest.fixture
def pulses() -> Iterator[Pulses]:
    made = Pulses()
    yield made
    made.close()


@pytest.fixture
def serve(pulses: Pulses, tmp_path: Path) -> Iterator[Serve]:
    """A writer behind a real port."""
    made: list[tuple[AcquisitionWriter, WebThread]] = []

    def one(token: str = "", **options: Any) -> Rest:
        given = {"stream": pulses.address, "output_file": str(tmp_path / "run.h5")}
        writer = AcquisitionWriter(
            WriterSettings.of(**{**given, "user_id": -1, "rest_port": 0, **options})
        )
        server = WebThread(build_app(writer, token), "127.0.0.1", 0)
        server.start()
        made.append((writer, server))
        return Rest(f"{server.address}/", token)

    yield one
    for writer, server in made:
        writer.close()
        server.stop()


def done(rest: Rest) -> dict[str, Any]:
    return wait_until(lambda: (r := rest.get("status"))["status"] == "done" and r)


def test_the_calls_users_know(pulses: Pulses, serve: Serve, tmp_path: Path) -> None:
    rest = serve()
    reply = rest.get("status")
    assert (reply["state"], reply["status"]) == ("ok", "waiting")
    code, reply = rest("POST", "parameters", GENERAL)
    assert (code, reply["state"], reply["parameters"]) == (200, "ok", GENERAL)
    pulses.run()
    reply = rest.put("start_pulse_id/20")
    assert (reply["state"], reply["status"], reply["phase"]) == ("ok", "writing", "armed")
    wait_until(lambda: rest.get("statistics")["statistics"]["n_rows"] > 5)
    reply = rest.get("statistics")
    assert (reply["state"], reply["status"]) == ("ok", "writing")
    assert reply["statistics"]["start_pulse_id"] == 20
    assert reply["statistics"]["stop_pulse_id"] is None
    assert reply["statistics"]["last_pulse_id"] >= 25
    assert abs(reply["statistics"]["last_timestamp"] - time.time()) < 5
    assert rest.put("stop_pulse_id/60")["stop_pulse_id"] == 60
    assert done(rest)["missing"] == []
    assert rows(tmp_path / "run.h5") == list(range(20, 61))


@pytest.mark.parametrize("body", [None, b"", b"{}", b"  "])
def test_start_now_without_a_body_starts(pulses: Pulses, serve: Serve, body: Any) -> None:
    rest = serve()
    pulses.run()
    # As curl sends what has no type of its own.
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    code, reply = rest("PUT", "start_now", body, headers)
    assert (code, reply["status"]) == (200, "writing")
    wait_until(lambda: rest.get("statistics")["statistics"]["n_rows"] > 0)
    assert rest.get("statistics")["statistics"]["start_timestamp"] == pytest.approx(time.time(), 5)
    assert rest.put("stop_now")["state"] == "ok"
    done(rest)


def test_start_now_with_another_file(pulses: Pulses, serve: Serve, tmp_path: Path) -> None:
    rest = serve()
    pulses.run()
    rest.put("start_now", {"output_file": str(tmp_path / "other.h5")})
    wait_until(lambda: rest.get("statistics")["statistics"]["n_rows"] > 0)
    rest.put("stop_now")
    assert done(rest)["file"] == str(tmp_path / "other.h5")
    assert rows(tmp_path / "other.h5")
    assert not (tmp_path / "run.h5").exists()


def test_a_second_start_is_refused_and_the_first_unharmed(
    pulses: Pulses, serve: Serve, tmp_path: Path
) -> None:
    rest = serve()
    pulses.run()
    rest.put("start_pulse_id/10")
    for path in ("start_pulse_id/5", "start_now"):
        code, reply = rest("PUT", path)
        assert (code, reply["state"]) == (409, "error")
        assert "runs only one" in reply["status"]
    rest.put("stop_pulse_id/60")
    done(rest)
    assert rows(tmp_path / "run.h5") == list(range(10, 61))


def test_an_existing_file_is_refused_unless_forced(
    pulses: Pulses, serve: Serve, tmp_path: Path
) -> None:
    (tmp_path / "run.h5").write_text("mine")
    rest = serve()
    code, reply = rest("PUT", "start_pulse_id/1")
    assert (code, reply["state"]) == (409, "error")
    assert "run.h5 exists" in reply["status"]
    assert rest.get("status")["status"] == "waiting"
    pulses.run(range(1, 6))
    for body in ({"force": True}, {"force": True, "output_file": "run.h5"}):
        code, reply = rest("PUT", "start_pulse_id/1", body)
        assert (code, reply["state"]) == (409, "error")
    assert (tmp_path / "run.h5").read_text() == "mine"
    forced = serve(force=True)
    forced.put("start_pulse_id/1", {"stop_pulse_id": 5, "output_file": "run.h5", "force": True})
    done(forced)
    assert rows(tmp_path / "run.h5") == [1, 2, 3, 4, 5]


def test_a_start_that_is_gone_says_what_is_missing(pulses: Pulses, serve: Serve) -> None:
    rest = serve()
    pulses.run(range(70, 90))
    reply = rest.put("start_pulse_id/50", {"stop_pulse_id": 75})
    assert reply["missing"] == [[50, 69]]
    assert done(rest)["missing"] == [[50, 69]]


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "text"),
    [
        ("PUT", "start_pulse_id/-1", None, 400, "out of range"),
        ("PUT", f"start_pulse_id/{2**63}", None, 400, "out of range"),
        ("PUT", "start_pulse_id/abc", None, 400, "valid integer"),
        ("PUT", "start_pulse_id/" + "9" * 5000, None, 400, "pulse_id"),
        ("PUT", "start_pulse_id/10", {"stop_pulse_id": 9}, 400, "before start"),
        ("PUT", "start_now", {"nonsense": 1}, 400, "nonsense"),
        ("PUT", "start_now", {"output_file": 5}, 400, "output_file"),
        ("PUT", "start_now", b"{", 400, "not JSON"),
        ("PUT", "start_now", b"[]", 400, "JSON object"),
        ("PUT", "start_now", b"[" * 100_000, 400, "not JSON"),
        ("PUT", "start_now", b" " * 2_000_000, 413, "longer than"),
        ("PUT", "start_now", {"output_file": "/proc/no/where.h5"}, 403, "is outside of"),
        ("PUT", "start_now", {"output_file": "../x.h5", "force": True}, 403, "is outside of"),
        ("PUT", "start_now", {"output_file": "/dev/null"}, 403, "is outside of"),
        ("PUT", "start_now", {"output_file": "\ud800"}, 400, "not a name"),
        ("PUT", "stop_now", None, 409, "no acquisition was started"),
        ("PUT", "stop_pulse_id/-5", None, 400, "out of range"),
        ("POST", "parameters", {"general/user": "me"}, 400, "general/created"),
        ("POST", "parameters", None, 400, "missing"),
        ("POST", "parameters", {**GENERAL, "general/user": {}}, 400, "must be a text"),
        ("GET", "acquisitions/7", None, 404, "no acquisition 7"),
        ("GET", "nowhere", None, 404, "Not Found"),
        ("PUT", "status", None, 405, "Method Not Allowed"),
    ],
)
def test_wrong_requests_are_refused_at_once_in_json(
    serve: Serve, method: str, path: str, body: Any, code: int, text: str
) -> None:
    rest = serve()
    began = time.monotonic()
    got, reply = rest(method, path, body)
    assert time.monotonic() - began < 60
    assert got == code
    assert reply["state"] == "error"
    assert text in reply["status"]
    assert rest.get("status")["status"] == "waiting"


def test_stop_in_the_middle_of_a_range(pulses: Pulses, serve: Serve, tmp_path: Path) -> None:
    rest = serve()
    pulses.run()
    rest.put("start_pulse_id/5", {"stop_pulse_id": 10_000})
    wait_until(lambda: rest.get("statistics")["statistics"]["n_rows"] > 10)
    reply = rest.get("stop")
    assert (reply["state"], reply["status"]) == ("ok", "done")
    found = rows(tmp_path / "run.h5")
    assert found[0] == 5
    assert len(found) > 10


def test_kill_leaves_a_file_that_can_be_read(pulses: Pulses, serve: Serve, tmp_path: Path) -> None:
    rest = serve()
    pulses.run()
    rest.put("start_pulse_id/5")
    wait_until(lambda: rest.get("statistics")["statistics"]["n_rows"] > 10)
    assert rest.get("kill")["state"] == "ok"
    assert len(rows(tmp_path / "run.h5")) > 10


def test_a_token_is_needed_when_there_is_one(serve: Serve) -> None:
    rest = serve(token="geheim-ß")
    assert rest.get("status")["status"] == "waiting"
    for token in ("", "wrong", "geheim"):
        code, reply = Rest(rest.url, token)("GET", "status")
        assert (code, reply["state"]) == (401, "error")
        assert Rest(rest.url, token)("PUT", "start_now")[0] == 401
        assert Rest(rest.url, token)("GET", "kill")[0] == 401
    assert rest.get("status")["status"] == "waiting"


def test_pages_of_other_sites_may_not_speak_to_it(serve: Serve) -> None:
    rest = serve()
    cross = {"Sec-Fetch-Site": "cross-site"}
    for method, path, headers in (
        ("GET", "kill", cross),
        ("POST", "kill", cross),
        ("POST", "parameters", {"Origin": "http://elsewhere.example"}),
        ("PUT", "start_now", {"Origin": "null"}),
        # Its name resolves to us: then origin and host agree.
        ("GET", "kill", {"Host": "elsewhere.example:8888"}),
        ("GET", "status", {"Host": "elsewhere.example"}),
        ("POST", "stop", {"Host": "elsewhere.example", "Origin": "http://elsewhere.example"}),
    ):
        code, reply = rest(method, path, headers=headers)
        assert (code, reply["state"]) == (403, "error"), (method, path, headers)
    assert rest.get("status")["status"] == "waiting"


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Mode": "navigate"},
        {"Origin": "http://127.0.0.1"},
        {"Referer": "http://elsewhere.example/"},
        {"User-Agent": "Mozilla/5.0"},
    ],
)
def test_no_browser_ends_it_with_get(serve: Serve, headers: dict[str, str]) -> None:
    rest = serve()
    for path in ("stop", "kill"):
        code, reply = rest("GET", path, headers=headers)
        assert (code, reply["state"]) == (403, "error")
    assert rest.get("status")["status"] == "waiting"
    origin = rest.url.rstrip("/")
    assert rest("POST", "kill", headers={"Origin": origin, "User-Agent": "Mozilla/5.0"})[0] == 200
    assert rest("PUT", "start_now")[0] == 409


def test_a_name_that_was_allowed(serve: Serve) -> None:
    rest = serve(allow_host=("daq.example",))
    assert rest("GET", "status", headers={"Host": "daq.example:8888"})[0] == 200


def test_several_acquisitions_have_numbers(pulses: Pulses, serve: Serve, tmp_path: Path) -> None:
    rest = serve(service=True, parallel=2, output_file=str(tmp_path))
    pulses.run()
    first = rest.put("start_pulse_id/10", {"output_file": "1.h5"})
    second = rest.put("start_now", {"output_file": "2.h5"})
    assert (first["acquisition"], second["acquisition"]) == (1, 2)
    assert rest.put("acquisitions/1/stop_pulse_id/30")["acquisition"] == 1
    wait_until(lambda: rest.get("acquisitions/1")["status"] == "done")
    assert rest.get("acquisitions/2")["status"] == "writing"
    assert rest.get("acquisitions/1/statistics")["statistics"]["n_rows"] == 21
    rest.put("acquisitions/2/stop_now")
    wait_until(lambda: rest.get("acquisitions/2")["status"] == "done")
    found = rest.get("acquisitions")["acquisitions"]
    assert [one["phase"] for one in found] == ["done", "done"]
    assert rows(tmp_path / "1.h5") == list(range(10, 31))


def test_pages_need_no_network(serve: Serve) -> None:
    import urllib.request

    rest = serve()
    for path, text in (("", "<svg"), ("docs", "start_pulse_id/{pulse_id}")):
        with urllib.request.urlopen(rest.url + path) as answer:
            page = answer.read().decode()
        assert text in page or "polyline" in page
        assert "://" not in page.replace("http://www.w3.org", "")
    schema = rest.get("openapi.json")
    assert "/parameters" in schema["paths"]
    codes = {
        code
        for calls in schema["paths"].values()
        for c in calls.values()
        for code in c["responses"]
    }
    assert codes == {"200", "400", "401", "403", "404", "409", "413", "507"}


@pytest.mark.parametrize("valid", [True, False])
def test_nothing_that_is_sent_is_a_server_error(
    pulses: Pulses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, valid: bool
) -> None:
    # Its import takes more than a second, which each process of the tests would spend.
    import schemathesis
    from schemathesis.checks import not_a_server_error

    mode = schemathesis.GenerationMode.POSITIVE if valid else schemathesis.GenerationMode.NEGATIVE
    monkeypatch.setattr("pvapy_stream.daq.writer._INFORMED", 0.01)
    writer = AcquisitionWriter(
        WriterSettings.of(
            stream=pulses.address,
            output_file=str(tmp_path),
            user_id=-1,
            rest_port=0,
            service=True,
            silence_limit=0.1,
            # As the client of ASGI applications calls it.
            allow_host=("testserver",),
        )
    )
    # After /kill, all answers would be that the writer is ending.
    schema = schemathesis.openapi.from_asgi("/openapi.json", build_app(writer)).exclude(
        path="/kill"
    )
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) == 14
    for operation in operations:

        @settings(max_examples=rounds(2), deadline=None, suppress_health_check=list(HealthCheck))
        @given(operation.as_strategy(generation_mode=mode))
        def no_server_error(case: Any) -> None:
            case.call_and_validate(checks=[not_a_server_error])

        try:
            no_server_error()
        except Unsatisfiable:
            # A call without any parameter cannot be wrong.
            assert not valid
    writer.close()
