"""The live page of a real chain: in a browser, and as those see it who should not give commands."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pvapy_stream.errors import MonitorError
from pvapy_stream.monitor.control import send_command
from tests.in_process import call
from tests.support import (
    PATIENCE,
    Commands,
    Program,
    Source,
    get,
    wait_for_monitors,
    wait_until,
)
from tests.support import write_processor as write_file
from tests.web.browser import needs_chromium, overflow, page

TOKEN = "a-token-of-the-test"

PROCESSOR = """
import pvaccess as pva
from pvapy_stream import UserDataProcessor

class Factor(UserDataProcessor):
    def __init__(self, configDict):
        super().__init__(configDict)
        self.factor = 1
    def configure(self, configDict):
        if configDict["factor"] < 0:
            raise ValueError("factor must not be negative")
        self.factor = configDict["factor"]
    def process(self, pvObject):
        self.updateOutputChannel(pvObject)
    def getStats(self):
        return {"factor": self.factor}
    def getStatsPvaTypes(self):
        return {"factor": pva.INT}
"""


class Dashboard:
    """A running dashboard, and requests to it."""

    def __init__(self, program: Program) -> None:
        self.program = program
        line = wait_until(lambda: next((x for x in program.out if "dashboard:" in x), ""))
        self.url = line.split()[1]

    def ask(self, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and content of an answer; a body makes it a POST."""
        data = None if body is None else json.dumps(body).encode()
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, data, names)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                content = answer.read()
                kind = answer.headers["content-type"]
                return answer.status, json.loads(content) if "json" in kind else content
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def answer(self, path: str, status: int) -> Any:
        """The content of the first answer with this status."""
        return wait_until(
            lambda: (told := self.ask(path))[0] == status and told[1], what=f"{status} for {path}"
        )

    def command(self, body: Any, **headers: str) -> tuple[int, Any]:
        given = {"Content_Type": "application/json", "Authorization": f"Bearer {TOKEN}", **headers}
        return self.ask("api/command", body, **given)


class Chain:
    """A source, a consumer with a processor that can be configured, and their dashboard."""

    def __init__(self, folder: Path) -> None:
        self.prefix = f"t{uuid.uuid4().hex[:8]}:"
        self.status = f"{self.prefix}status"
        self.source = Source(f"{self.prefix}image")
        self.commands = Commands()
        self.published = 0
        self.commands(
            "consumer", "-ic", self.source.channel, "-oc", f"{self.prefix}out", "-sc", self.status,
            "-cc", f"{self.prefix}control", "-pf", write_file(folder, PROCESSOR), "-pc", "Factor",
            "--status-period", "0.2", "-sqs", "500",
        )  # fmt: skip
        wait_for_monitors([self.status])
        (folder / "token").write_text(TOKEN + "\n")
        self.dashboard = Dashboard(
            self.commands(
                "dashboard", "-sc", self.status, f"{self.prefix}none", "-ic", self.source.channel,
                "--port", 0, "--token-file", folder / "token", "--refresh", "0.3", "--title",
                "Test <1>",
            )
        )  # fmt: skip

    def publish(self, count: int, period: float = 0.001) -> None:
        """Publish images with the next ids."""
        first = self.published + 1
        self.published += count
        self.source.publish(range(first, first + count), period)

    def end(self) -> None:
        """End the dashboard.

        Raises:
            AssertionError: something went wrong in it.
        """
        program = self.dashboard.program
        program.signal()
        assert program.wait() == 0, program.text
        assert "Traceback" not in program.text

    def close(self) -> None:
        self.commands.close()
        self.source.close()


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """For tests that leave it as it was, but for frames that were published."""
    made = Chain(tmp_path_factory.mktemp("chain"))
    try:
        yield made
        made.end()
    finally:
        made.close()


@pytest.fixture
def own_chain(tmp_path: Path) -> Iterator[Chain]:
    made = Chain(tmp_path)
    try:
        yield made
        made.end()
    finally:
        made.close()


@needs_chromium
def test_a_person_watches_and_configures(chain: Chain) -> None:
    prefix, dashboard = chain.prefix, chain.dashboard
    with page(viewport={"width": 1300, "height": 900}) as shown:
        shown.goto(dashboard.url)
        row = shown.locator(f'tr[data-channel="{prefix}status"]')
        row.wait_for()
        assert shown.locator("h1").inner_text() == "Test <1>"
        chain.publish(100, 0.01)
        shown.wait_for_function(
            "row => parseFloat(row.querySelector('.rate').textContent) > 5",
            arg=row.element_handle(),
        )
        chain.publish(2, 0.01)
        processed = row.locator('[data-label="processed"]')
        shown.wait_for_function(
            f"cell => cell.textContent === '{chain.published}'", arg=processed.element_handle()
        )
        # The rate is live: it goes down when nothing comes.
        shown.wait_for_function(
            "row => row.querySelector('.rate').textContent === '0/s'", arg=row.element_handle()
        )
        assert shown.locator("#chain g").count() == 3
        assert "consumer 1" in shown.locator("#chain").text_content()
        assert shown.locator(".chart canvas").count() == 3
        assert shown.locator("#link").inner_text() == "live"
        shown.wait_for_function("document.getElementById('image').naturalWidth > 0")
        before = shown.locator("#image").get_attribute("src")
        shown.select_option("#colormap", "inferno")
        shown.wait_for_function("old => document.getElementById('image').src !== old", arg=before)
        # The absent stage is an alarm after five seconds.
        shown.locator("#active .alarm").first.wait_for()
        assert f"{prefix}none: connected is 0" in shown.locator("#active").inner_text()

        row.locator("button").click()
        shown.select_option("#command", "configure")
        shown.fill("#args", '{"factor": 7}')
        shown.fill("#token", "no token at all")
        shown.click("#send")
        reply = shown.locator("#reply.bad", has_text="wrong token")
        reply.wait_for()
        shown.fill("#token", TOKEN)
        shown.click("#send")
        shown.locator("#reply", has_text="Configuration successful").wait_for()
        wait_until(lambda: get(f"{prefix}status", "userStats")["factor"] == 7)
        shown.fill("#args", '{"factor": -1}')
        shown.click("#send")
        shown.locator("#reply.bad", has_text="factor must not be negative").wait_for()
        shown.locator("#control button.plain").click()
        # The console tells of the answer to the wrong token.
        assert [p for p in shown.problems if "401" not in p] == []
        assert overflow(shown) <= 0


@needs_chromium
def test_on_a_phone_in_the_dark(chain: Chain) -> None:
    size = {"width": 390, "height": 844}
    with page(viewport=size, color_scheme="dark", has_touch=True) as shown:
        shown.goto(chain.dashboard.url)
        shown.locator("#stages tbody tr").first.wait_for()
        assert overflow(shown) <= 0
        assert shown.locator("#stages thead").is_hidden()
        background = shown.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == "rgb(14, 18, 24)"


def test_who_may_give_commands(chain: Chain) -> None:
    prefix, dashboard = chain.prefix, chain.dashboard
    stage = {"channel": f"{prefix}status", "command": "get_stats"}
    # Until it has seen the stage, it knows no control channel.
    status, told = wait_until(lambda: (a := dashboard.command(stage))[0] != 404 and a)
    assert (status, told) == (200, {"ok": True, "reply": "Stats update successful"})
    # Without the right token, or from a page of another origin, nothing is done.
    host = dashboard.url.split("/")[2]
    for headers, expected in (
        ({"Authorization": ""}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": f"Bearer {TOKEN}x"}, 401),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Origin": f"http://{host}", "Sec_Fetch_Site": "same-origin"}, 200),
    ):
        assert dashboard.command({**stage, "command": "pause"}, **headers)[0] == expected
        paused = get(f"{prefix}status", "state") == "paused"
        assert paused == (expected == 200)
    assert dashboard.command({**stage, "command": "resume"})[0] == 200
    # What is asked must make sense.
    status, told = dashboard.command({**stage, "command": "fly"})
    assert (status, told["ok"]) == (200, False)
    assert "unknown command 'fly'" in told["reply"]
    assert dashboard.command({**stage, "channel": "other"})[0] == 404
    assert dashboard.command({**stage, "channel": f"{prefix}none"})[0] == 404
    for wrong in ({}, [], {"channel": 1, "command": ""}, {**stage, "command": "x" * 999}):
        assert dashboard.command(wrong)[0] == 422
    # Pages of others can read nothing, and hold us in no frame.
    with urllib.request.urlopen(dashboard.url, timeout=10) as answer:
        assert answer.headers["access-control-allow-origin"] is None
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


def test_a_name_that_is_not_ours_is_refused(chain: Chain) -> None:
    """DNS rebinding: a page of another site calls us by its own name."""
    prefix, dashboard = chain.prefix, chain.dashboard
    port = dashboard.url.split(":")[2].strip("/")
    stage = {"channel": f"{prefix}status", "command": "pause"}
    for host in (f"evil.example:{port}", f"127.0.0.1.evil.example:{port}"):
        for path in ("", "api/state", "api/history", "static/dashboard.js"):
            status, told = dashboard.ask(path, Host=host)
            assert (status, "--allow-host" in told) == (403, True)
        assert dashboard.command(stage, Host=host, Origin=f"http://{host}")[0] == 403
    assert get(f"{prefix}status", "state") != "paused"
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", "10.0.0.1"):
        assert dashboard.ask("api/state", Host=host)[0] == 200


def test_a_name_can_be_allowed(prefix: str, commands: Commands) -> None:
    board = Dashboard(
        commands("dashboard", "-sc", f"{prefix}none", "--port", 0, "--allow-host", "lab.example")
    )
    assert board.ask("api/state", Host="lab.example")[0] == 200
    assert board.ask("api/state", Host="lab.example.org")[0] == 403


def test_what_can_be_asked(own_chain: Chain) -> None:
    prefix, source, dashboard = own_chain.prefix, own_chain.source, own_chain.dashboard
    # A channel that takes long to be found or to answer is told as one that does not.
    picture = f"api/image?channel={source.channel}"
    assert dashboard.answer(picture, 200).startswith(b"\x89PNG")
    assert "pink" in dashboard.answer(f"{picture}&colormap=pink", 400)
    assert dashboard.ask("api/image?channel=other")[0] == 404
    source.close()
    assert "does not answer" in dashboard.answer(f"{picture}&log=true", 503)
    for path in ("static/../app.py", "static/%2e%2e/app.py", "openapi.json", "docs"):
        assert dashboard.ask(path)[0] == 404
    history = dashboard.ask("api/history")[1]
    assert len(history["stages"][f"{prefix}status"]["rate"]) == len(history["times"]) > 0
    with urllib.request.urlopen(dashboard.url + "api/events", timeout=PATIENCE) as news:
        told = (json.loads(line[6:]) for line in news if line[:1] == b"d")
        seen = [next(told), next(told)]
    assert seen[1]["time"] > seen[0]["time"]
    assert seen[0]["stages"][0]["channel"] == f"{prefix}status"
    assert [one["state"] for one in seen[0]["stages"]][1] == "absent"


def test_control_channels_of_stages_that_do_not_tell_and_read_only(
    chain: Chain, commands: Commands
) -> None:
    one = commands("dashboard", "-sc", chain.status, "--read-only", "--port", 0)
    board = Dashboard(one)
    body = {"channel": chain.status, "command": "get_stats"}
    status, told = board.command(body)
    assert status == 403
    assert "--read-only" in told
    assert board.ask("api/state")[1]["stages"][0]["control"] == ""
    assert "token" not in one.text
    # The port is taken now.
    port = board.url.split(":")[2].strip("/")
    second = call("dashboard", "-sc", chain.status, "--port", port)
    assert second.code == 1
    assert "Address already in use; choose others with --address and --port" in second.text


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ((), 2, "give --status-channel or --workflow"),
        (("-sc", "a", "--token-file", "/no/such"), 2, "cannot read /no/such"),
        (("-sc", "a", "--token-file", "/dev/null"), 2, "at least 8 characters"),
        (("-sc", "a", "--alarm", "nothing > 3"), 2, "no quantity 'nothing'"),
    ],
)
def test_wrong_options(options: tuple[str, ...], code: int, message: str) -> None:
    done = call("dashboard", *options)
    assert done.code == code
    assert message in done.text


def test_an_address_of_another_machine(commands: Commands) -> None:
    program = commands("dashboard", "-sc", "a", "--address", "203.0.113.1")
    assert program.wait() == 1
    assert "cannot serve at 203.0.113.1" in program.text


def test_commands_without_anybody_to_answer(prefix: str) -> None:
    with pytest.raises(MonitorError, match="does not answer"):
        send_command(f"{prefix}none", "get_stats", timeout=0.5)


def test_the_terminal(chain: Chain, commands: Commands) -> None:
    prefix = chain.prefix
    chain.publish(7)
    top = commands(
        "top", "-sc", f"{prefix}status", f"{prefix}none", "-rt", "0.7", "--refresh", "0.3"
    )
    assert top.wait() == 0, top.text
    lines = [line for line in top.out if f"{prefix}status" in line]
    assert "running" in lines[-1]
    assert any(" absent " in line for line in top.out)
    assert any(line.split("│")[1].strip() == "all" for line in top.out if "│" in line)


def test_the_terminal_shows_all_stages_when_none_is_named(chain: Chain, commands: Commands) -> None:
    prefix = chain.prefix
    chain.publish(7)
    top = commands("top", "--refresh", "0.3")
    wait_until(lambda: f"{prefix}status" in top.text, what="the stage")
    # No images, outputs and control channels.
    shown = [line.split("│")[1].strip() for line in top.out if line.startswith("│")]
    assert f"{prefix}status" in shown
    assert not {name for name in shown if name.startswith(prefix)} - {f"{prefix}status"}
    top.signal()
    assert top.wait() == 0


def test_an_address_of_the_new_kind(prefix: str, commands: Commands) -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    program = commands("dashboard", "-sc", f"{prefix}none", "--address", "::1", "--port", 0)
    line = wait_until(lambda: program.out and program.out[0])
    with urllib.request.urlopen(line.split()[1] + "api/state", timeout=10) as answer:
        assert answer.status == 200
