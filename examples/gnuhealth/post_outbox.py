"""Posts what waits in GNU Health's outbox: the oldest first, and the next when the gateway has answered.

    GATEWAY_URL=… GATEWAY_API_KEY=whk_… python post_outbox.py -c trytond.conf -d gh   # what cron does every minute
    python post_outbox.py -c trytond.conf -d gh --show                                # what waits, what was refused

A row leaves when the gateway has the event. Its key is the idempotency key, so a run that dies in between does no harm,
and neither do two at once.
"""

import argparse
import json
import os
import sys
from datetime import datetime
from typing import Any

from trytond.config import config
from trytond.pool import Pool
from trytond.transaction import Transaction

from webhook_gateway.client import Gateway, GatewayUnavailable, Refused

AT_ONCE = 500


class Outbox:
    def __init__(self, database: str) -> None:
        Pool.start()
        self.database, self.pool = database, Pool(database)
        self.pool.init()

    def rows(self, *, refused: bool = False) -> list[dict[str, Any]]:
        with Transaction().start(self.database, 0, readonly=True):
            columns = ["id", "key", "type", "data", "timestamp", "refused"]
            found = self._model().search_read(
                [("refused", "!=" if refused else "=", None)],
                order=[("id", "ASC")],
                limit=AT_ONCE,
                fields_names=columns,
            )
            return list(found)

    def remove(self, row: dict[str, Any]) -> None:
        with Transaction().start(self.database, 0):
            self._model().delete(self._model().search([("id", "=", row["id"])]))

    def refuse(self, row: dict[str, Any], reason: str | None) -> None:
        with Transaction().start(self.database, 0):
            self._model().write(self._model().search([("id", "=", row["id"])]), {"refused": reason})

    def _model(self) -> Any:
        return self.pool.get("webhook.outbox")


def post(outbox: Outbox, gateway: Gateway) -> int:
    """Returns an exit code of sysexits.h. What it prints holds nothing about a patient."""
    while rows := outbox.rows():
        for row in rows:
            try:
                gateway.post_event(
                    row["type"],
                    json.loads(row["data"]),
                    timestamp=datetime.fromisoformat(row["timestamp"]),
                    idempotency_key=row["key"],
                )
            except GatewayUnavailable as later:
                print(later, file=sys.stderr)
                return os.EX_TEMPFAIL  # nothing is lost: the next run posts the same
            except Refused as no:
                print(f"{row['key']} {row['type']}: {no}", file=sys.stderr)
                if no.status == 401:
                    return os.EX_NOPERM  # the key is at fault, and not the event
                outbox.refuse(row, str(no))
            else:
                outbox.remove(row)
    return show(outbox)


def show(outbox: Outbox) -> int:
    """1 if the gateway has refused one: that needs a person."""
    refused = outbox.rows(refused=True)
    for row in [*outbox.rows(), *refused]:
        print(row["key"], row["type"], row["timestamp"], row["refused"] or "waits")
    return 1 if refused else 0


def main() -> int:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("-c", "--config", required=True)
    arguments.add_argument("-d", "--database", required=True)
    arguments.add_argument("--show", action="store_true", help="only show what waits and what was refused")
    arguments.add_argument("--retry", action="store_true", help="post those again that were refused")
    asked = arguments.parse_args()
    config.update_etc(asked.config)
    outbox = Outbox(asked.database)
    if asked.show:
        return show(outbox)
    for row in outbox.rows(refused=True) if asked.retry else ():
        outbox.refuse(row, None)
    with Gateway(os.environ["GATEWAY_URL"], os.environ["GATEWAY_API_KEY"]) as gateway:
        return post(outbox, gateway)


if __name__ == "__main__":
    sys.exit(main())
