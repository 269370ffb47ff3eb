"""What the demo shows: a table of the partners below a stream of what they met; plain lines into a pipe."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .partners import Partner, Posted, is_refusal

WAITING = "waiting"
"""What a ledger says of a callback that was received and is yet to be worked off."""
ORDER = (
    '{"type":"lab_order.placed","data":{"order_id":"ord_1","patient_id":"pat_1",'
    '"ordering_practitioner_id":"prac_1","priority":"stat"}}'
)


class Screen:
    def __init__(self, partners: list[Partner]) -> None:
        self.partners = partners
        self.closing: str | None = None
        """The last line of all."""
        self._console = Console(highlight=False, soft_wrap=True)
        self._live: Live | None = None
        self._seen = {partner.name: 0 for partner in partners}
        self._in_vain = {partner.name: 0 for partner in partners}
        self._decisions = 0

    def open(self) -> None:
        """Begins the live table, where there is a terminal."""
        if self._console.is_terminal:
            self._live = Live(self._table(), console=self._console, auto_refresh=False)
            self._live.start()

    def close(self) -> None:
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
            self._live.stop()
            self._live = None

    def conclude(self) -> None:
        """Prints the closing line, once."""
        if self.closing is not None:
            self._console.print(self.closing, markup=False)
            self.closing = None

    def explain(self, address: str, key: str, link: str, worker: int) -> None:
        """What one can try while everything runs."""
        self.conclude()
        post = f"curl -i {address}/v1/events -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json'"
        lines = (
            "",
            f"console  {link}",
            f"API      {address}",
            f"docs     {address}/docs",
            f"key      {key}    (signs in to the console, too)",
            f"try      {post} -d '{ORDER}'",
            "try      the console's Problems: night_desk's URL lacks an s. Change it, then replay the group",
            f"try      kill -9 {worker}    (the worker: another one takes over)",
            "",
            "it stays up until Ctrl-C, which ends everything and removes its data",
        )
        self._console.print("\n".join(lines), markup=False)

    def line(self, text: str) -> None:
        self._print(Text(text))

    def event(self, partner: Partner, what: str, style: str = "bold green") -> None:
        self._print(Text.assemble((f"{partner.name:15} ", "cyan"), (what, style)))

    def show(self, decisions: Sequence[Posted]) -> None:
        """What is new since the last time."""
        for partner in self.partners:
            if not partner.is_up and partner.in_vain > self._in_vain[partner.name]:
                self._in_vain[partner.name] = partner.in_vain
                so_far = f"{partner.in_vain} attempts so far, {partner.waiting} deliveries wait"
                self.event(partner, f"is down, connection refused: {so_far}", "yellow")
            for row in partner.ledger[self._seen[partner.name] :]:
                if row["did"] == WAITING:
                    break  # shown when it is known what became of it
                self._seen[partner.name] += 1
                self._row(partner, row)
        for each in decisions[self._decisions :]:
            what = f"posts an insurer's {each.type} to {', '.join(each.to or ())} as {each.id}"
            self._print(Text.assemble(("claims_desk     ", "cyan"), what))
        self._decisions = len(decisions)
        if self._live is not None:
            self._live.update(self._table(), refresh=True)

    def _row(self, partner: Partner, row: dict[str, Any]) -> None:
        met, style = ("202", "dim") if row["duplicate"] else ("202", "green")
        if is_refusal(row):
            met, style = ("503", "yellow") if row["signature_ok"] else ("401", "bold red")
        what = (f"{row['type']:28} ", (f"{row['webhook_id']}  ", "dim"), row["did"])
        self._print(Text.assemble((f"{partner.name:15} ", "cyan"), (f"{met}  ", style), *what))

    def _table(self) -> Table:
        table = Table("partner", "", "has", "refused", "duplicates", "waiting", header_style="bold")
        for partner in self.partners:
            refused = sum(is_refusal(row) for row in partner.ledger)
            duplicates = sum(bool(row["duplicate"]) for row in partner.ledger)
            state = Text(partner.what) if partner.is_up else Text("is down", "bold red")
            waiting = Text(str(partner.waiting), "yellow" if partner.waiting else "dim")
            table.add_row(partner.name, state, str(len(partner.kept())), str(refused), str(duplicates), waiting)
        return table

    def _print(self, text: Text) -> None:
        console = self._live.console if self._live is not None else self._console
        console.print(Text(time.strftime("%H:%M:%S "), "dim") + text)
