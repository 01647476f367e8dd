"""Messages that arrive: mail at a real SMTP server, PVs, programs; and those that cannot."""

from __future__ import annotations

import smtplib
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pvaccess as pva
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from pvapy_stream.errors import MissingExtraError, SettingsError
from pvapy_stream.monitor.alarms import Alarms
from pvapy_stream.monitor.notifiers import (
    CommandNotifier,
    EmailNotifier,
    PvNotifier,
    make_notifiers,
)
from pvapy_stream.monitor.outbox import Outbox, RateLimit
from pvapy_stream.settings import MonitorSettings, parse_rule
from tests.monitor.fakes import Listener
from tests.ports import free_port
from tests.support import get, wait_until

TLS_USER = {"email_to": "a@x", "smtp_user": "me", "smtp_tls": "tls"}


class Mailbox:
    """An SMTP server that keeps what it gets."""

    def __init__(self, **options: Any) -> None:
        self.mails: list[Any] = []
        self.refuse = 0
        self._controller = Controller(self, hostname="127.0.0.1", port=0, **options)

    def start(self) -> Mailbox:
        # The controller's own start connects to the port it was given, which is 0 here.
        self._controller.port = free_port()
        self._controller.start()
        return self

    @property
    def port(self) -> int:
        return self._controller.port

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.refuse:
            self.refuse -= 1
            return "451 try again later"
        mail = message_from_bytes(envelope.content)
        self.mails.append((mail, envelope.mail_from, envelope.rcpt_tos))
        return "250 OK"

    def stop(self) -> None:
        self._controller.stop()


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    made = Mailbox().start()
    yield made
    made.stop()


def test_mail_has_from_to_subject_and_text(mailbox: Mailbox) -> None:
    settings = MonitorSettings.of(
        notify="", email_to="a@x.org, b@x.org", email_from="beam@x.org", smtp_server="127.0.0.1",
        smtp_port=mailbox.port,
    )  # fmt: skip
    (outbox,) = make_notifiers(settings)
    outbox.notify("ALARM: /data: free < 5\r\nBcc: all@x.org", "free is 4 GB at 30 µK")
    wait_until(lambda: mailbox.mails)
    mail, sender, recipients = mailbox.mails[0]
    assert mail["From"] == sender == "beam@x.org"
    assert mail["To"] == "a@x.org, b@x.org"
    assert recipients == ["a@x.org", "b@x.org"]
    assert mail["Subject"] == "ALARM: /data: free < 5 Bcc: all@x.org"
    assert mail["Bcc"] is None
    assert mail.get_payload(decode=True).decode().strip() == "free is 4 GB at 30 µK"


def test_mail_with_tls_and_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    logins: list[tuple[bytes, bytes]] = []

    def check(_: Any, __: Any, ___: Any, ____: Any, data: Any) -> AuthResult:
        logins.append((data.login, data.password))
        return AuthResult(success=data.password == b"secret", handled=False)

    mailbox = Mailbox(tls_context=context, auth_required=True, authenticator=check).start()
    settings = {
        "email_to": "a@x.org", "smtp_server": "127.0.0.1", "smtp_port": mailbox.port,
        "notify": "",
        "smtp_tls": "starttls", "smtp_user": "beam", "smtp_ca_file": str(certificate),
    }  # fmt: skip
    try:
        monkeypatch.setenv("PVAPY_STREAM_SMTP_PASSWORD", "secret")
        (outbox,) = make_notifiers(MonitorSettings.of(**settings))
        outbox.notify("title", "text")
        wait_until(lambda: mailbox.mails)
        assert logins == [(b"beam", b"secret")]
        # An authority that is not known, and a wrong password.
        wrong = EmailNotifier(["a@x.org"], "", "127.0.0.1", mailbox.port, "starttls")
        with pytest.raises(ssl.SSLCertVerificationError):
            wrong.notify("title", "text")
        (tmp_path / "password").write_text("guess\n")
        settings["smtp_password_file"] = str(tmp_path / "password")
        (outbox,) = make_notifiers(MonitorSettings.of(**settings))
        with pytest.raises(smtplib.SMTPAuthenticationError):
            outbox._notifier.notify("title", "text")
        assert logins[-1] == (b"beam", b"guess")
    finally:
        mailbox.stop()


def test_a_password_goes_over_tls_alone_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVAPY_STREAM_SMTP_PASSWORD", "secret")
    logins: list[tuple[bytes, bytes]] = []

    def check(_: Any, __: Any, ___: Any, ____: Any, data: Any) -> AuthResult:
        logins.append((data.login, data.password))
        return AuthResult(success=True)

    mailbox = Mailbox(auth_require_tls=False, authenticator=check).start()
    settings = {
        "email_to": "a@x.org", "smtp_server": "127.0.0.1", "smtp_port": mailbox.port,
        "notify": "", "smtp_user": "beam",
    }  # fmt: skip
    try:
        with pytest.raises(SettingsError, match=r"--smtp-user.*--smtp-tls.*--smtp-plain-login"):
            MonitorSettings.of(**settings)
        with pytest.raises(SettingsError, match="--smtp-tls"):
            EmailNotifier(["a@x.org"], "", "127.0.0.1", mailbox.port, user="beam", password="x")
        # The server knows no STARTTLS: somebody between may have left that out.
        email = EmailNotifier(
            ["a@x.org"], "", "127.0.0.1", mailbox.port, "starttls", user="beam", password="x"
        )
        with pytest.raises(smtplib.SMTPException):
            email.notify("title", "text")
        assert logins == []
        (outbox,) = make_notifiers(MonitorSettings.of(**settings, smtp_plain_login=True))
        outbox.notify("title", "text")
        wait_until(lambda: mailbox.mails)
        assert logins == [(b"beam", b"secret")]
    finally:
        mailbox.stop()
    for target in ("mailto://beam:secret@x.example", "MAILTO://x.example?user=beam&pass=secret"):
        with pytest.raises(SettingsError, match="mailtos://") as caught:
            make_notifiers(MonitorSettings.of(notify=target))
        assert "secret" not in str(caught.value)


def test_a_server_that_refuses_is_tried_again(mailbox: Mailbox) -> None:
    mailbox.refuse = 2
    email = EmailNotifier(["a@x.org"], "", "127.0.0.1", mailbox.port)
    outbox = Outbox(email, retry_after=(0.05, 0.05, 0.05))
    outbox.notify("title", "text")
    wait_until(lambda: mailbox.mails)
    outbox.close()
    assert (outbox.n_sent, outbox.n_failed) == (1, 0)


def test_a_dead_server_is_logged_and_keeps_nobody(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        email = EmailNotifier(["a@x.org"], "", "127.0.0.1", dead.getsockname()[1])
        outbox = Outbox(email, retry_after=(0.02, 0.02))
        started = time.monotonic()
        outbox.notify("title", "text")
        assert time.monotonic() - started < 60
        wait_until(lambda: outbox.n_failed == 1)
        outbox.close()
    assert "message 'title' could not be sent: ConnectionRefusedError" in caplog.text


def test_ten_thousand_alarms_in_a_second_become_few_messages() -> None:
    listener = Listener()
    outbox = Outbox(listener, per_minute=6)
    started = time.monotonic()
    for n in range(10_000):
        outbox.notify(f"alarm {n}", "text")
    assert time.monotonic() - started < 60
    outbox.close()
    single = [title for title in listener.titles if title.startswith("alarm")]
    assert len(single) <= 6
    assert len(listener.told) <= 8
    digest = [(t, m) for t, m in listener.told if "messages:" in t]
    told = len(single) + sum(int(title.split()[0]) for title, _ in digest)
    assert told == 10_000
    assert "more" in digest[-1][1]
    assert all(len(text) < 5000 for _, text in listener.told)


def test_the_rate_is_limited() -> None:
    limit = RateLimit(6)
    sent = []
    now = 0.0
    for _ in range(9):
        now += limit.delay(now)
        limit.spend()
        sent.append(round(now))
    assert sent == [0, 0, 0, 0, 0, 0, 10, 20, 30]
    assert RateLimit(0).delay(5) == 0


def test_what_hangs_at_the_end_is_counted() -> None:
    release = threading.Event()

    class Hangs:
        def notify(self, title: str, message: str) -> None:
            release.wait(30)

    outbox = Outbox(Hangs())
    for _ in range(3):
        outbox.notify("title", "text")
    wait_until(lambda: outbox._sending)
    outbox.close(timeout=0.2)
    release.set()
    assert outbox.n_failed == 3


def test_a_pv_gets_the_message(prefix: str) -> None:
    server = pva.PvaServer(f"{prefix}alarm", pva.PvObject({"value": pva.STRING}, {"value": ""}))
    try:
        PvNotifier(f"{prefix}alarm").notify("ALARM", "it is hot")
        assert get(f"{prefix}alarm", "value") == "ALARM: it is hot"
    finally:
        server.stop()


def test_a_program_gets_title_and_message(tmp_path: Path) -> None:
    file = tmp_path / "told"
    code = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text(repr(sys.argv[2:]))"
    CommandNotifier(f"{sys.executable} -c '{code}' {file}").notify("ALARM; rm x", "$(text) 'a'")
    assert file.read_text() == repr(["ALARM; rm x", "$(text) 'a'"])
    failing = Outbox(CommandNotifier(f"{sys.executable} -c 'import sys; sys.exit(3)'"))
    failing.notify("a", "b")
    failing.close()
    assert "ended with code 3" in failing.last_error


def test_apprise_speaks_to_services() -> None:
    import json
    from http.server import BaseHTTPRequestHandler, HTTPServer

    posted: list[dict[str, str]] = []

    class Service(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        target = f"json://127.0.0.1:{server.server_port}/"
        (outbox,) = make_notifiers(MonitorSettings.of(notify=[target]))
        alarms = Alarms([parse_rule("temperature > 5 every 1 min")])
        for n, (value, now) in enumerate(((9, 0), (9, 60), (1, 61)), 1):
            (event,) = alarms.update("temperature", "crystal", value, now, "C")
            outbox.notify(event.title, event.message)
            # Messages that wait are put together.
            wait_until(lambda n=n: outbox.n_sent == n)
        outbox.notify("Door", "it is open")
        outbox.close()
        server.shutdown()
    assert [(post["title"].partition(":")[0], post["type"]) for post in posted] == [
        ("ALARM", "failure"), ("still ALARM", "failure"), ("OK", "success"), ("Door", "info"),
    ]  # fmt: skip
    assert posted[0]["message"].startswith("crystal: temperature is 9 C; the rule is")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"notify": ["carrier-pigeon"]}, "carrier-pigeon:… is not print, log, pv:CHANNEL"),
        ({"notify": ["command:"]}, "has no program"),
        ({"notify": ["command:a 'b"]}, "quotation"),
        ({"email_from": "a@x"}, "--email-from needs --email-to"),
        (TLS_USER, "set PVAPY_STREAM_SMTP_PASSWORD"),
        (
            {**TLS_USER, "smtp_password_file": "/no/such"},
            "cannot read /no/such",
        ),
        ({"email_to": "a@x", "smtp_port": 70000}, "--smtp-port"),
        ({"email_to": "a@x", "smtp_tls": "ssl3"}, "--smtp-tls"),
        ({"notify_rate": 0}, "--notify-rate"),
    ],
)
def test_wrong_targets(
    values: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PVAPY_STREAM_SMTP_PASSWORD", raising=False)
    with pytest.raises(SettingsError, match=message):
        make_notifiers(MonitorSettings.of(**values))


def test_without_apprise_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(MissingExtraError, match=r"pvapy-stream\[notify\]"):
        make_notifiers(MonitorSettings.of(notify=["json://localhost"]))
