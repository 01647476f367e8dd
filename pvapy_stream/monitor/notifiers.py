"""Notifiers: terminal, log, mail, a PV, a command, and services of apprise."""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
import sys
import warnings
from collections.abc import Sequence
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from pvapy_stream.errors import MonitorError, SettingsError
from pvapy_stream.monitor.alarms import level_of
from pvapy_stream.monitor.outbox import Notifier, Outbox
from pvapy_stream.plugins import require
from pvapy_stream.settings import NotifySettings

if TYPE_CHECKING:
    import smtplib

__all__ = [
    "AppriseNotifier",
    "CommandNotifier",
    "EmailNotifier",
    "LogNotifier",
    "Notifier",
    "PrintNotifier",
    "PvNotifier",
    "make_notifiers",
]

PASSWORD_VARIABLE = "PVAPY_STREAM_SMTP_PASSWORD"  # noqa: S105 - the name of a variable

_SMTP_TIMEOUT = 10.0  # s
_COMMAND_TIMEOUT = 30.0  # s
_PV_TIMEOUT = 5.0  # s
_PORTS = {"none": 25, "starttls": 587, "tls": 465}
_MAX_SUBJECT = 200  # characters

_log = logging.getLogger("pvapy_stream.alarms")


class PrintNotifier:
    """Prints to standard output."""

    def notify(self, title: str, message: str) -> None:
        sys.stdout.write(f"{title}: {message}\n")
        sys.stdout.flush()


class LogNotifier:
    """Writes to the log, as a warning."""

    def notify(self, title: str, message: str) -> None:
        _log.warning("%s: %s", title, message)


class EmailNotifier:
    """Sends mail.

    Args:
        to: recipients.
        sender: sender; the first recipient when "".
        server: mail server.
        port: its port; 0: the usual one.
        tls: none, starttls or tls.
        user: "" for no login.
        password: of the user.
        ca_file: certificate of the server's authority; "": those that the system trusts.
        plain_login: allow a login without TLS.

    Raises:
        SettingsError: a password would be sent unencrypted.
    """

    def __init__(
        self,
        to: Sequence[str],
        sender: str = "",
        server: str = "localhost",
        port: int = 0,
        tls: str = "none",
        *,
        user: str = "",
        password: str = "",
        ca_file: str = "",
        plain_login: bool = False,
    ) -> None:
        if user and tls == "none" and not plain_login:
            raise SettingsError(
                f"mail server {server}: the password of {user} would be sent unencrypted; use"
                " starttls or tls (--smtp-tls), or allow it (--smtp-plain-login)"
            )
        self.to = [to] if isinstance(to, str) else list(to)
        self.sender = sender or self.to[0]
        self.server = server
        self.tls = tls
        self.port = port or _PORTS[tls]
        self._user = user
        self._password = password
        # Here, and not above: most programs send no mail, and TLS takes its time to load.
        import ssl

        self._context = ssl.create_default_context(cafile=ca_file or None)

    def notify(self, title: str, message: str) -> None:
        """Send a mail.

        Raises:
            OSError, smtplib.SMTPException: it cannot be delivered to the server.
        """
        mail = EmailMessage()
        mail["From"] = self.sender
        mail["To"] = ", ".join(self.to)
        # A line break in a header would begin another header.
        mail["Subject"] = " ".join(title.split())[:_MAX_SUBJECT]
        mail["Date"] = formatdate(localtime=True)
        mail["Message-ID"] = make_msgid(domain="pvapy-stream")
        mail.set_content(message)
        with self._connect() as smtp:
            if self.tls == "starttls":
                smtp.starttls(context=self._context)
            if self._user:
                smtp.login(self._user, self._password)
            smtp.send_message(mail)

    def _connect(self) -> smtplib.SMTP:
        import smtplib

        if self.tls == "tls":
            return smtplib.SMTP_SSL(
                self.server, self.port, timeout=_SMTP_TIMEOUT, context=self._context
            )
        return smtplib.SMTP(self.server, self.port, timeout=_SMTP_TIMEOUT)


class AppriseNotifier:
    """Sends messages to a service of apprise, as failure, success, warning or information.

    Raises:
        MissingExtraError: apprise is not installed.
        SettingsError: apprise does not support the URL.
    """

    def __init__(self, url: str) -> None:
        self._scheme = url.partition(":")[0]
        with warnings.catch_warnings():
            # It loads the modules of all services, some of them with deprecated imports.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._apprise = require("apprise", "notify").Apprise()
            known = self._apprise.add(url)
        if not known:
            raise SettingsError(
                f"--notify: {self._scheme}:… is not print, log, pv:CHANNEL or command:PROGRAM, and"
                " apprise cannot use it; see the list of services in apprise's documentation"
            )

    def notify(self, title: str, message: str) -> None:
        """Send a message; several that were put together have their titles in the text.

        Raises:
            MonitorError: the service did not accept it.
        """
        level = level_of([title, *message.splitlines()])
        if not self._apprise.notify(title=title, body=message, notify_type=level):
            raise MonitorError(f"{self._scheme}: the service did not accept the message")


class PvNotifier:
    """Puts "title: message" to a PV with a string."""

    def __init__(self, channel: str) -> None:
        self._channel = channel

    def notify(self, title: str, message: str) -> None:
        import pvaccess as pva

        pv = pva.Channel(self._channel)
        pv.setTimeout(_PV_TIMEOUT)
        try:
            pv.put(f"{title}: {message}")
        except pva.PvaException as error:
            raise MonitorError(f"cannot put to {self._channel}: {error}") from error


class CommandNotifier:
    """Runs a program, without a shell, with title and message as its last two arguments.

    Raises:
        SettingsError: the command is empty, or its quotes do not match.
    """

    def __init__(self, command: str) -> None:
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise SettingsError(f"--notify command:{command}: {error}") from error
        if not self._words:
            raise SettingsError("--notify command: has no program; write command:PROGRAM ARGS")

    def notify(self, title: str, message: str) -> None:
        done = subprocess.run(
            [*self._words, title, message],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_COMMAND_TIMEOUT,
            check=False,
        )
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()[-200:]
            raise MonitorError(f"{self._words[0]} ended with code {done.returncode}: {said}")


def make_notifiers(settings: NotifySettings) -> list[Notifier]:
    """The notifiers of settings, each with its own outbox.

    Raises:
        SettingsError: one is wrong.
        MissingExtraError: one needs a package that is not installed.
    """
    slow = [
        _make(target, settings.smtp_plain_login)
        for target in settings.notify
        if target not in _QUICK
    ]
    if settings.email_to:
        slow.append(
            EmailNotifier(
                settings.email_to,
                settings.email_from,
                settings.smtp_server,
                settings.smtp_port,
                settings.smtp_tls,
                user=settings.smtp_user,
                password=_password(settings),
                ca_file=settings.smtp_ca_file,
                plain_login=settings.smtp_plain_login,
            )
        )
    quick = [_QUICK[target]() for target in settings.notify if target in _QUICK]
    return [*quick, *(Outbox(one, per_minute=settings.notify_rate) for one in slow)]


_QUICK: dict[str, type[PrintNotifier] | type[LogNotifier]] = {
    "print": PrintNotifier,
    "log": LogNotifier,
}


def _make(target: str, plain_login: bool) -> Notifier:
    kind, separator, rest = target.partition(":")
    if kind.lower() == "mailto" and _has_password(target) and not plain_login:
        raise SettingsError(
            "--notify mailto://…: the password would be sent unencrypted; write mailtos://…, or"
            " allow it with --smtp-plain-login"
        )
    if separator and kind == "pv":
        return PvNotifier(rest)
    if separator and kind == "command":
        return CommandNotifier(rest)
    return AppriseNotifier(target)


def _has_password(url: str) -> bool:
    parts = urlsplit(url)
    return bool(parts.password) or "pass" in parse_qs(parts.query)


def _password(settings: NotifySettings) -> str:
    if not settings.smtp_user:
        return ""
    if settings.smtp_password_file:
        try:
            return Path(settings.smtp_password_file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise SettingsError(
                f"--smtp-password-file: cannot read {settings.smtp_password_file}: {error.strerror}"
            ) from error
    password = os.environ.get(PASSWORD_VARIABLE, "")
    if not password:
        raise SettingsError(
            f"--smtp-user needs a password: set {PASSWORD_VARIABLE} or give --smtp-password-file"
        )
    return password
