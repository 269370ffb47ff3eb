"""Mail to operators by SMTP, over TLS unless it is turned off."""

from __future__ import annotations

import asyncio
from email.message import EmailMessage
from email.utils import localtime, make_msgid

from webhook_gateway.settings import Settings

PATIENCE = 20.0
"""Seconds for each answer of the server."""


async def send(settings: Settings, subject: str = "", text: str = "") -> str | None:
    """Gives the server a message, or without one asks whether it would take it; the name of what failed, or None."""
    try:
        import aiosmtplib
    except ImportError:
        return "aiosmtplib_missing"
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = settings.smtp_from, ", ".join(settings.smtp_to), subject
    message["Date"], message["Message-ID"] = localtime(), make_msgid(domain=str(settings.smtp_from).rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"  # nobody's absence answers it (RFC 3834)
    message.set_content(text)
    try:
        file = settings.smtp_password_file
        password = None if file is None else (await asyncio.to_thread(file.read_text)).strip()
        async with aiosmtplib.SMTP(
            hostname=settings.smtp_host,
            port=settings.smtp_port,
            username=settings.smtp_user,
            password=password,
            use_tls=settings.smtp_tls == "implicit",
            start_tls=settings.smtp_tls == "starttls",
            timeout=PATIENCE,
        ) as server:
            if text:
                await server.send_message(message)
                return None
            await server.mail(str(settings.smtp_from))
            for address in settings.smtp_to:
                await server.rcpt(address)
            await server.rset()
    except (aiosmtplib.SMTPException, OSError) as error:  # what the server says may name people
        return type(error).__name__
    return None
