"""``demo``: see webhooks being delivered, retried and put in order, in a minute and without a setup."""

from __future__ import annotations

from typing import Annotated

import typer


def demo(
    exit: Annotated[
        bool, typer.Option("--exit", help="End when everything is delivered; exit code 0 if nothing was lost.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same day.")] = 7,
    patients: Annotated[int, typer.Option("--patients", min=1, max=500, help="How busy the day is.")] = 6,
    port: Annotated[int, typer.Option("--port", "-p", min=0, max=65_535, help="The API's; 0: any free one.")] = 0,
) -> None:
    """Run a whole gateway with sample partners and a made-up hospital day; Ctrl-C ends it and removes everything.

    One partner refuses twice before it accepts, one is slow, one is down at first: watch the retries.

    [dim]Example:[/dim]  webhook-gateway demo --exit
    """
    from webhook_gateway.demo import run

    raise typer.Exit(run(ends=exit, seed=seed, patients=patients, port=port))
