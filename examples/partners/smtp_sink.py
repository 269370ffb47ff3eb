"""A mail server that delivers nothing: it stores each mail as an .eml file and shows them. It refuses *.invalid.

python -m examples.partners.smtp_sink --smtp-port 1025 --port 8025
curl http://127.0.0.1:8025/mails
"""

import argparse
import asyncio
import email
import email.policy
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

from aiosmtpd.smtp import SMTP, Envelope, Session
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .serve import listen


class Mailbox:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    # aiosmtpd calls these two by name.
    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.endswith(".invalid"):  # RFC 2606: reserved for names that are sure to be wrong
            return "550 No such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        number = len(list(self.folder.glob("*.eml"))) + 1
        (self.folder / f"{number:06}.eml").write_bytes(cast(bytes, envelope.original_content))
        return "250 Message accepted for delivery"

    async def show(self, request: Request) -> Response:
        """All mails, oldest first; ?to=ADDRESS shows one person's."""
        mails = [self.read(path) for path in sorted(self.folder.glob("*.eml"))]
        to = request.query_params.get("to")
        return JSONResponse([mail for mail in mails if to is None or mail["to"] == to])

    def read(self, path: Path) -> dict[str, str]:
        mail = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        headers = {name: str(mail[name]) for name in ("from", "to", "subject", "message-id")}
        return {**headers, "text": mail.get_content().strip()}


def main() -> None:
    parser = argparse.ArgumentParser("smtp_sink")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="of the HTTP page that shows the mails")
    parser.add_argument("--smtp-port", type=int, default=1025, help="0: any free port")
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir(), "hms-partners"))
    flags = parser.parse_args()
    mailbox = Mailbox(flags.data / "mails")

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        smtp = await loop.create_server(lambda: SMTP(mailbox, hostname="smtp-sink"), flags.host, flags.smtp_port)
        print(f"smtp on {flags.host}:{smtp.sockets[0].getsockname()[1]}", flush=True)
        yield
        smtp.close()

    listen(Starlette(routes=[Route("/mails", mailbox.show)], lifespan=lifespan), flags.host, flags.port)


if __name__ == "__main__":
    main()
