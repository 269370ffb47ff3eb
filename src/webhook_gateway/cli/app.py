"""All commands, as ``webhook-gateway --help`` lists them."""

from __future__ import annotations

from typing import Annotated

import typer

from webhook_gateway import __version__

from . import (
    audit,
    check,
    console,
    demo,
    disclosures,
    find,
    keys,
    listen,
    migrate,
    nouns,
    operate,
    partners,
    receive,
    replay,
    serve,
    status,
    up,
    url,
)

EPILOGUE = (
    "Exit codes: 0 done (or: yes), 1 failed (or: no), 2 wrong usage or a bad setting, 3 the database is unavailable, "
    "4 changes are pending (apply --plan), 130 interrupted. Settings come from WEBHOOK_GATEWAY_* and DATABASE_URL."
)

app = typer.Typer(
    name="webhook-gateway",
    help="Delivers a hospital's events to its partners: signed, retried, in order, and nothing accepted is lost.",
    epilog=EPILOGUE,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"webhook-gateway {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Options of the command itself."""


START, SET_UP, OPERATE, DEVELOP = "Start", "Set up", "Operate", "For partners' developers"
OVER_API = "From anywhere, over the API"

app.command(rich_help_panel=START)(demo.demo)
app.command(rich_help_panel=START)(up.up)
app.command(rich_help_panel=START)(serve.serve)
app.command(rich_help_panel=START)(serve.work)
app.command(rich_help_panel=SET_UP)(migrate.migrate)
app.command(rich_help_panel=SET_UP)(check.check)
app.add_typer(keys.app, name="keys", rich_help_panel=SET_UP)
app.command("check-url", rich_help_panel=SET_UP)(url.check_url)
app.command(rich_help_panel=OPERATE)(console.console)
app.command(rich_help_panel=OPERATE)(status.status)
app.command(rich_help_panel=OPERATE)(find.find)
app.command(rich_help_panel=OPERATE)(operate.why)
app.command(rich_help_panel=OPERATE)(replay.replay)
app.command(rich_help_panel=OPERATE)(replay.backfill)
app.command("try-now", rich_help_panel=OPERATE)(replay.try_now)
app.command(rich_help_panel=OPERATE)(operate.pause)
app.command(rich_help_panel=OPERATE)(operate.resume)
app.command(rich_help_panel=OPERATE)(operate.cancel)
app.command("pause-all", rich_help_panel=OPERATE)(operate.pause_all)
app.command("resume-all", rich_help_panel=OPERATE)(operate.resume_all)
app.add_typer(audit.app, name="audit", rich_help_panel=OPERATE)
app.command(rich_help_panel=OPERATE)(disclosures.disclosures)
app.command(rich_help_panel=OVER_API)(partners.apply)
app.command(rich_help_panel=OVER_API)(partners.export)
for noun in nouns.NOUNS:
    app.add_typer(noun, rich_help_panel=OVER_API)
app.command(rich_help_panel=OVER_API)(nouns.problems)
app.command(rich_help_panel=DEVELOP)(receive.sign)
app.command(rich_help_panel=DEVELOP)(receive.verify)
app.command(rich_help_panel=DEVELOP)(listen.listen)
