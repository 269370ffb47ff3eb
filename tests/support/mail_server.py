"""A mail server that wants TLS and a password, and keeps what it gets."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from pathlib import Path
from typing import Any

import trustme
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

USER, PASSWORD = "gateway", "a password"


@dataclass
class MailServer:
    settings: dict[str, Any]
    messages: list[EmailMessage] = field(default_factory=list)
    refuses: bool = False

    # aiosmtpd calls these two by name.
    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("nobody@"):
            return "550 No such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.refuses:
            return "451 Try again later"
        parsed = BytesParser(EmailMessage, policy=default).parsebytes(envelope.original_content or b"")
        self.messages.append(parsed)
        return "250 OK"

    def texts(self) -> list[str]:
        """Of each message its subject and text."""
        return [f"{message['subject']}\n{message.get_content()}" for message in self.messages]


@asynccontextmanager
async def mail_server(folder: Path, *, tls: str = "starttls") -> AsyncIterator[MailServer]:
    """With what settings have to say to send there. Its certificate is of ``folder / "ca.pem"``."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(folder / "ca.pem")
    (folder / "password").write_text(f"{PASSWORD}\n")
    (folder / "password").chmod(0o600)
    found = MailServer(
        {
            "smtp_host": "localhost",
            "smtp_tls": tls,
            "smtp_user": USER,
            "smtp_password_file": folder / "password",
            "smtp_from": "gateway@hospital.example",
            "smtp_to": ("operators@hospital.example", "night@hospital.example"),
        }
    )

    def served() -> SMTP:
        return SMTP(
            found,
            hostname="mail.hospital.example",
            tls_context=context if tls == "starttls" else None,
            require_starttls=tls == "starttls",
            auth_required=tls == "starttls",  # without it aiosmtpd warns; who gives a wrong password is refused even so
            auth_require_tls=tls == "starttls",
            authenticator=_authenticate,
        )

    loop = asyncio.get_running_loop()
    server = await loop.create_server(served, "127.0.0.1", 0, ssl=context if tls == "implicit" else None)
    found.settings["smtp_port"] = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()


def _authenticate(_server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, given: Any) -> AuthResult:
    return AuthResult(success=(given.login, given.password) == (USER.encode(), PASSWORD.encode()))
