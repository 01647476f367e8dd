"""Settings of notifications: targets and their transport."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pvapy_stream.base_settings import opt
from pvapy_stream.settings.common import LoggingSettings
from pvapy_stream.settings.text_types import Names


class NotifySettings(LoggingSettings):
    """Targets of alarm messages."""

    notify: Annotated[Names, opt("-n --notify", "Notifications", metavar="TARGET", many=True)] = (
        Field(
            ("print",),
            description=(
                "print, log, pv:CHANNEL, command:PROGRAM ARGS, or a URL of apprise, such as"
                " slack://… (needs the extra notify)"
            ),
        )
    )
    notify_rate: Annotated[
        float, opt("--notify-rate", "Notifications", "messages/min", metavar="N")
    ] = Field(
        6,
        gt=0,
        description="highest rate of messages to each target; further ones are combined into one",
    )
    email_to: Annotated[Names, opt("--email-to", "Notifications", metavar="ADDRESS", many=True)] = (
        Field((), description="send mail to these addresses")
    )
    email_from: Annotated[str, opt("--email-from", "Notifications", metavar="ADDRESS")] = Field(
        "", description="sender of the mail; default: the first recipient"
    )
    smtp_server: Annotated[str, opt("--smtp-server", "Notifications", metavar="HOST")] = Field(
        "localhost", min_length=1, description="mail server"
    )
    smtp_port: Annotated[int, opt("--smtp-port", "Notifications", metavar="PORT")] = Field(
        0, ge=0, le=65535, description="its port; 0: 25, 587 with starttls, 465 with tls"
    )
    smtp_tls: Annotated[Literal["none", "starttls", "tls"], opt("--smtp-tls", "Notifications")] = (
        Field("none", description="encryption of the connection")
    )
    smtp_ca_file: Annotated[str, opt("--smtp-ca-file", "Notifications", metavar="FILE")] = Field(
        "", description="certificate of the authority that signed the mail server's certificate"
    )
    smtp_user: Annotated[str, opt("--smtp-user", "Notifications", metavar="NAME")] = Field(
        "", description="user at the mail server"
    )
    smtp_password_file: Annotated[
        str, opt("--smtp-password-file", "Notifications", metavar="FILE")
    ] = Field(
        "",
        description="file with the password; default: the variable PVAPY_STREAM_SMTP_PASSWORD",
    )
    smtp_plain_login: Annotated[bool, opt("--smtp-plain-login", "Notifications")] = Field(
        False,
        description="also log in without TLS: the password can then be read in the network",
    )

    @model_validator(mode="after")
    def _mail_is_complete(self) -> NotifySettings:
        for name in ("email_from", "smtp_user"):
            if name in self.model_fields_set and getattr(self, name) and not self.email_to:
                raise ValueError(f"--{name.replace('_', '-')} needs --email-to")
        if self.smtp_user and self.smtp_tls == "none" and not self.smtp_plain_login:
            raise ValueError(
                "--smtp-user: the password would be sent unencrypted; give --smtp-tls starttls or"
                " tls, or allow it with --smtp-plain-login"
            )
        return self
