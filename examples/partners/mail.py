"""Send one e-mail through a real SMTP conversation."""

import os
import smtplib
from email.message import EmailMessage


def send_mail(to: str, subject: str, text: str, webhook_id: str) -> None:
    """Raises OSError if the mail server (SMTP_ADDRESS, default 127.0.0.1:1025) is away, so that the event waits for it,
    and ValueError if it will never accept the address, so that nobody behind has to wait.

    The Message-ID is made of the webhook-id, so a mail sent twice after a crash is recognised by mail programs.
    """
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "City Hospital <no-reply@example.org>", to, subject
    mail["Message-ID"] = f"<{webhook_id}@example.org>"
    mail.set_content(text)
    host, _, port = os.environ.get("SMTP_ADDRESS", "127.0.0.1:1025").rpartition(":")
    with smtplib.SMTP(host, int(port), timeout=5) as server:
        try:
            server.send_message(mail)
        except smtplib.SMTPRecipientsRefused as refusal:
            raise ValueError("the mail server refuses this address") from refusal
