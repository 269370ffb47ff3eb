"""The documentation can't rot: what it names exists, what it tabulates is what the code says, what it shows runs."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import time
import tomllib
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import httpx
import pytest
import typer.main
import yaml
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from standardwebhooks import Webhook

from tests.support.partner import partner_beside
from webhook_gateway.cli.app import app as command_line
from webhook_gateway.crypto.vault import MasterKeys, Vault
from webhook_gateway.delivery.deliver import sign
from webhook_gateway.host import supervisor
from webhook_gateway.intake.catalogue import Catalogue
from webhook_gateway.intake.ingest import Ingest
from webhook_gateway.operations.first_start import issue_key
from webhook_gateway.outbound.sender import Request
from webhook_gateway.rules import ids
from webhook_gateway.rules.deadlines import (
    API_DRAINS_WITHIN,
    API_TREE_KILLED_AFTER,
    LONGEST_DEADLINE,
    SETTLING,
    TOKEN_DEADLINE,
    WORKER_DRAINS_WITHIN,
    WORKER_KILLED_AFTER,
    WORKER_TREE_KILLED_AFTER,
)
from webhook_gateway.rules.model import DEFAULT_SCHEDULE, Delivery, Endpoint, Health
from webhook_gateway.rules.outcome import (
    Accepted,
    Blocked,
    Outcome,
    Phase,
    Rejected,
    Remedy,
    TimedOut,
    Unreachable,
    Unsendable,
)
from webhook_gateway.rules.scopes import Role, Scope
from webhook_gateway.rules.sentences import WhyNot
from webhook_gateway.rules.unreachable import Trouble
from webhook_gateway.rules.verdict import GiveUp, Postpone, Verdict, decide
from webhook_gateway.rules.waiting import Reason
from webhook_gateway.settings import Settings
from webhook_gateway.store.database import Database
from webhook_gateway.web.api.schemas.endpoints import NewEndpoint
from webhook_gateway.web.app import create_app
from webhook_gateway.web.errors import TITLES

CHECKOUT = Path(__file__).parents[1]
DOCS = CHECKOUT / "docs"
PAGES = sorted(
    [
        *CHECKOUT.glob("*.md"),
        *(page for place in ("docs", "examples", "clients") for page in (CHECKOUT / place).rglob("*.md")),
    ]
)
SOURCE = CHECKOUT / "src" / "webhook_gateway"
FORMER_WORDS = (
    r"\b(?:[Rr]oad|born|stranded|Hinter|hints?|give_back|hand_back|surroundings|hindrance|in vain|had with"
    r"|[Mm]end(?:s|ed)?|wants_deaths|lease_at_birth|CompleteLooks|AHEAD|AWAY|DatabaseAway|BIND|Journey|_Lane|_lanes?|lanes?)\b"
)
"""What the words of the glossary were before they were the field's own."""
SECRET = "whsec_" + b64encode(bytes(range(32))).decode()

FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<code>.*?)^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)")
ROUTE = re.compile(r"(?:\b(GET|POST|PUT|PATCH|DELETE) )?(/v1/[\w{}/…-]*[\w}…]|/metrics\b|/healthz\b|/readyz\b)")
PLACE = re.compile(r"\{[a-z_]+\}|[a-z]+_…|…")

FILE = re.compile(r"`([\w./*-]+\.py)`")
FOLDER = re.compile(r"`(\w[\w/]*)/`")
NAMES = r"(?:`\w+(?: = [^`]+)?`(?:, | and )?)+"
DEFINITIONS = re.compile(rf"({NAMES}) in\s`([\w./-]+\.py)`")
"""What stands in a file, perhaps with its value."""


def named(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


every_page = pytest.mark.parametrize("page", PAGES, ids=named)


# What pages name exists


@every_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(prose_of(page)):
        if re.match(r"[a-z]+://|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        assert not anchor or anchor in anchors_of(found), target


@every_page
def test_every_picture_is_there_for_light_and_dark_is_told_in_words_and_is_small(page: Path) -> None:
    text = page.read_text()
    pictures = re.findall(r'<(?:img|source)[^>]* (?:src|srcset)="([^"]+)"', text)
    for picture in pictures:
        assert (page.parent / picture).stat().st_size <= 150_000, picture
        assert picture.replace("-light.", "-dark.") in pictures, picture
    assert all(re.search(r' alt="[^"]{20,}"', tag) for tag in re.findall(r"<img[^>]*>", text))


@every_page
def test_every_make_target_is_one(page: Path) -> None:
    targets = set(re.findall(r"^\.PHONY: (\S+)$", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    for code in code_of(page):
        assert set(re.findall(r"(?:^|[\s;&(`])make ([a-z][a-z-]*)", code)) <= targets, code


@every_page
def test_every_command_and_option_is_known(page: Path) -> None:
    for line in commands_of(page):
        known: Any = typer.main.get_command(command_line)
        for word in line:
            if hasattr(known, "commands") and not word.startswith("-"):
                assert word in known.commands, line
                known = known.commands[word]
            elif re.match(r"--?[a-z]", word):
                options = {name for parameter in known.params for name in (*parameter.opts, *parameter.secondary_opts)}
                assert word.partition("=")[0] in options | {"--help"}, line


@every_page
def test_every_setting_is_one(page: Path) -> None:
    named_there = set(re.findall(r"\bWEBHOOK_GATEWAY_[A-Z_]*[A-Z]\b", page.read_text()))
    assert named_there <= {*variables(), "WEBHOOK_GATEWAY_DATABASE_URL"}


@every_page
def test_every_route_is_in_the_openapi_document(page: Path) -> None:
    for method, path in routes_in(page):
        methods = routes().get(shape(path))
        assert methods is not None, path
        assert not method or method in methods, f"{method} {path}"


@every_page
def test_every_id_that_is_written_in_full_can_be_one(page: Path) -> None:
    for prefix, text in re.findall(r"\b((?:evt|sub|ep|dlv|att|key|job)_)([0-9a-z]{26})\b", page.read_text()):
        ids.parse(prefix[:-1], prefix + text)


@pytest.mark.parametrize("text", [*PAGES, *SOURCE.rglob("*.py")], ids=named)
def test_every_file_that_is_cited_is_there_with_what_stands_in_it(text: Path) -> None:
    cited = text.read_text()
    for name in FILE.findall(cited):
        assert files_called(name), name
    for names, place in DEFINITIONS.findall(cited):
        (file,) = files_called(place)
        for name, value in re.findall(r"`(\w+)(?: = ([^`]+))?`", names):
            assert value in ("", definitions_of(file)[name]), name


@every_page
def test_every_folder_that_is_cited_is_there(page: Path) -> None:
    rooms = {folder for file in python_files() for folder in file.parents}
    for name in FOLDER.findall(page.read_text()):
        assert (CHECKOUT / name).is_dir() or any(room.match(name) for room in rooms), name


async def test_every_metric_is_there_when_one_scrapes(database_url: str) -> None:
    text = await scrape(database_url)
    families = {family.name: family for family in text_string_to_metric_families(text)}
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}
    known = {name + ending for name, family in families.items() for ending in endings.get(family.type, ("",))}
    for file in [*PAGES, DOCS / "alerts.yml"]:
        for name in re.findall(r"\bwebhook_gateway_[a-z_]*[a-z]\b", file.read_text()):
            assert name in known, f"{named(file)}: {name}"


def test_the_readme_is_one_screen_and_a_half() -> None:
    assert len((CHECKOUT / "README.md").read_text().splitlines()) <= 75


def test_every_alert_has_its_paragraph_in_the_runbook() -> None:
    rules = [rule for group in alerts()["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) > 0
    for rule in rules:
        assert {"alert", "expr", "for", "labels", "annotations"} == set(rule), rule["alert"]
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert anchor in anchors_of(DOCS / page), rule["alert"]
        assert rule["labels"]["severity"] in {"critical", "warning"}


def test_every_promise_names_tests_that_exist() -> None:
    text = (DOCS / "promises.md").read_text()
    rows = re.findall(r"^\| ([1-6]) \| (.+) \|$", text, re.MULTILINE)
    assert [number for number, _ in rows] == list("123456")
    for number, tests in rows:
        held_by = re.findall(r"\[`(test_\w+|f\d+_\w+)`\]\(([^)]+)\)", tests)
        assert held_by, number
        for name, path in held_by:
            assert re.search(rf"^(async )?def {name}\(", (DOCS / path).read_text(), re.MULTILINE), name


def test_every_decision_is_in_the_index_and_has_its_parts() -> None:
    decisions = sorted((DOCS / "decisions").glob("*.md"))
    index = (DOCS / "README.md").read_text()
    assert [int(file.name[:4]) for file in decisions] == list(range(1, len(decisions) + 1))
    for file in decisions:
        text = file.read_text()
        title = re.match(r"# (\d+)\. (.+)\n", text)
        assert title is not None, file.name
        assert f"{title[1]}. [{title[2]}](decisions/{file.name})" in index
        parts = [text.find(part) for part in ("## Context", "## Decision", "## Consequences", "## Alternatives")]
        assert parts == sorted(parts)
        assert parts[0] > 0
        concerned = re.search(r"^Files concerned: ((?:.|\n)+?)\.\n*\Z", text, re.MULTILINE)
        assert concerned is not None, file.name
        for path in re.findall(r"`([^`]+)`", concerned[1]):
            assert (CHECKOUT / path).exists(), f"{file.name}: {path}"


# What pages tabulate is what the code says


def test_the_settings_are_those_of_the_code_with_their_defaults() -> None:
    rows = table_of(DOCS / "operating.md", "| variable | default | meaning |")
    assert {name.strip("`"): default.strip("`") for name, default, _ in rows} == variables()


def test_the_log_lines_are_those_of_the_code() -> None:
    rows = table_of(DOCS / "operating.md", "| `message` | level | means | do |")
    told = {(message, level) for names, level, *_ in rows for message in re.findall(r"`(\w+)`", names)}
    assert told == set(logged())


def test_the_reasons_for_no_answer_are_those_of_the_code() -> None:
    rows = table_of(DOCS / "operating.md", "| `unreachable` because of | means |")
    assert {name.strip("`"): meaning for name, meaning in rows} == {trouble: trouble.sentence for trouble in Trouble}


def test_the_outcomes_mean_for_delivery_and_endpoint_what_the_rules_decide() -> None:
    rows = table_of(DOCS / "how-it-works.md", "| outcome | delivery | endpoint |")
    met = [outcome_called(name) for name, *_ in rows]
    assert {type(outcome) for outcome in met} == set(get_args(Outcome))
    assert {outcome.remedy for outcome in met if isinstance(outcome, Unsendable)} == set(Remedy)
    told = ""
    for outcome, (name, delivery, endpoint) in zip(met, rows, strict=True):
        told = told if delivery == "the same" else delivery
        assert told == meant_for_delivery(outcome), name
        assert re.match(re.escape(meant_for_endpoint(outcome)) + r"(, and .*)?$", endpoint), name


def test_the_reasons_to_wait_are_those_of_the_code() -> None:
    rows = table_of(DOCS / "how-it-works.md", "| `waiting_for` | |")
    assert {name.strip("`"): meaning for name, meaning in rows} == {reason: reason.sentence for reason in Reason}


def test_the_reasons_for_no_delivery_are_those_of_the_code_in_their_order() -> None:
    rows = table_of(DOCS / "how-it-works.md", "| `reason` | |")
    assert [(name.strip("`"), meaning) for name, meaning in rows] == [(why.value, why.sentence) for why in WhyNot]


def test_the_roles_are_those_of_the_code() -> None:
    rows = table_of(DOCS / "operating.md", "| role | may |")
    assert {name.strip("`") for name, _ in rows} == {*Role, Scope.ADMIN}


def test_the_problems_are_among_those_of_the_code() -> None:
    rows = table_of(DOCS / "producers.md", "| status | `type` ends with | what to do |")
    assert {name.strip("`") for _, name, _ in rows} <= set(TITLES)


def test_whoever_stops_a_gateway_outlasts_the_longest_request_and_its_token() -> None:
    compose = yaml.safe_load((CHECKOUT / "compose.yaml").read_text())["services"]
    assert compose["api"]["stop_grace_period"] == f"{API_TREE_KILLED_AFTER:g}s"
    assert compose["worker"]["stop_grace_period"] == f"{WORKER_TREE_KILLED_AFTER:g}s"
    page = " ".join((DOCS / "operating.md").read_text().split())
    said = re.findall(r"(?:TimeoutStopSec=|--stop-timeout |terminationGracePeriodSeconds: )(\d+)", page)
    assert len(said) >= 3
    assert set(map(float, said)) == {WORKER_TREE_KILLED_AFTER}
    assert f"the API within {API_DRAINS_WITHIN:g} seconds" in page
    assert f"at most {WORKER_DRAINS_WITHIN:g} seconds" in page
    assert f"at most {ENDPOINT.deadline + SETTLING:g} seconds with the default deadline" in page
    rows = table_of(DOCS / "how-it-works.md", "| under way | the drain ends within |")
    longest = [0.0] + [d + token for d in (ENDPOINT.deadline, LONGEST_DEADLINE) for token in (0.0, TOKEN_DEADLINE)]
    assert [within for _, within in rows] == [f"{request + SETTLING:g} s" for request in longest]
    killed = (
        f"after {WORKER_KILLED_AFTER:g} seconds where a supervisor runs it, and after {WORKER_TREE_KILLED_AFTER:g} by"
    )
    assert killed in " ".join((DOCS / "how-it-works.md").read_text().split())
    (worker,) = supervisor.workers(1)
    assert LONGEST_DEADLINE + TOKEN_DEADLINE < WORKER_DRAINS_WITHIN < worker.patience < WORKER_TREE_KILLED_AFTER
    assert NewEndpoint.model_json_schema()["properties"]["deadline"]["maximum"] == LONGEST_DEADLINE


def test_the_retries_are_those_of_the_code() -> None:
    rows = table_of(DOCS / "partners.md", "| attempt | wait before it | since the first, about |")
    units = {"s": 1, "min": 60, "h": 3600}
    waits = [row[1].split() for row in rows[1:]]
    assert tuple(float(number) * units[unit] for number, unit in waits) == DEFAULT_SCHEDULE
    assert f"{sum(DEFAULT_SCHEDULE) / 3600:.1f} h" == rows[-1][2]


def test_the_headers_are_those_that_are_sent() -> None:
    rows = table_of(DOCS / "partners.md", "| header | meaning |")
    one = UUID(int=1)
    endpoint = Endpoint(one, one, one, 1, "https://partner.example/", ("*",), secrets=(SECRET,))
    request = sign(Delivery(one, one, one, one, "a.b", 1, one, skipped_event_id=one, reason="test"), endpoint, b"{}", 0)
    assert isinstance(request, Request)
    assert {name.strip("`") for name, _ in rows} == set(request.headers)


def test_the_trails_lead_to_definitions_as_long_as_they_say() -> None:
    text = (DOCS / "trails.md").read_text()
    sums: list[int] = []
    for trail in text.split("\n## ")[1:]:
        steps = re.findall(r"^\| (\d+) \| `([\w/]+\.py)`(?: `([\w.]+)`)? \| (\d+) \| .+ \|$", trail, re.MULTILINE)
        assert [int(step) for step, *_ in steps] == list(range(1, trail.count("\n| ") - 1)), trail[:20]
        for _, file, name, lines in steps:
            assert is_about(int(lines), lines_of(SOURCE / file, name)), (
                f"{file} {name}: {lines_of(SOURCE / file, name)}"
            )
        sums.append(sum(int(lines) for *_, lines in steps))
        assert is_about(int(re.findall(r"^(\d+) lines, ", trail, re.MULTILINE)[0]), sums[-1]), trail[:20]
    assert len(sums) == 4
    assert is_about(int(re.findall(r"^(\d+) lines, ", text, re.MULTILINE)[0]), sum(sums))


def test_the_words_of_the_glossary_are_those_of_the_code() -> None:
    code = "\n".join(file.read_text() for file in SOURCE.rglob("*.py"))
    rows = re.findall(r"^\| ([a-z][a-z, -]+) \|", (DOCS / "glossary.md").read_text(), re.MULTILINE)
    words = [word for row in rows if row != "word" for word in row.split(", ")]
    assert len(words) == len(set(words)) > 50
    for word in words:
        assert re.search(r"\b_?" + re.sub("[ -]", "[ _-]?", word), code, re.IGNORECASE), word


@pytest.mark.parametrize("text", [*PAGES, *SOURCE.rglob("*.py")], ids=named)
def test_no_private_word_comes_back(text: Path) -> None:
    assert re.findall(FORMER_WORDS, text.read_text()) == []


def test_every_dependency_is_told_with_its_reason() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    required = {
        re.split(r"[\[<>=~ ]", text)[0]
        for some in [project["dependencies"], *project["optional-dependencies"].values()]
        for text in some
    }
    text = (DOCS / "decisions" / "0008-libraries.md").read_text()
    assert set(re.findall(r"^\| `([\w-]+)` \|", text, re.MULTILINE)) == required


# What pages show runs


@pytest.fixture(scope="module")
def signed() -> tuple[dict[str, str], bytes, int]:
    """A message as a partner gets it, signed by the specification's own library, and the time."""
    body, now = '{"id":"evt_1","data":{"value":4.10,"name":"Müller"}}', 1_795_392_000
    signature = Webhook(SECRET).sign("evt_1", datetime.fromtimestamp(now, UTC), body)
    headers = {"webhook-id": "evt_1", "webhook-timestamp": str(now), "webhook-signature": f"v1,AAAA {signature}"}
    return headers, body.encode(), now


def test_the_python_sample_verifies(signed: tuple[dict[str, str], bytes, int]) -> None:
    headers, body, now = signed
    space: dict[str, Any] = {}
    exec(sample("python"), space)
    verify = space["verify"]
    assert verify(SECRET, headers, body, now)
    assert not verify(SECRET, headers, body.replace(b"4.10", b"4.1"), now)
    assert not verify(SECRET, headers, body, now + 301)
    assert not verify(SECRET, {**headers, "webhook-timestamp": "x"}, body, now)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_javascript_sample_verifies(signed: tuple[dict[str, str], bytes, int]) -> None:
    headers, body, now = signed
    calls = [
        f"verify({json.dumps(SECRET)}, {json.dumps(headers)}, Buffer.from({json.dumps(text)}), {moment})"
        for text, moment in [
            (body.decode(), now),
            (body.decode().replace("4.10", "4.1"), now),
            (body.decode(), now + 301),
        ]
    ]
    script = sample("javascript") + f"\nconsole.log(JSON.stringify([{', '.join(calls)}]));"
    ran = subprocess.run(["node", "-e", script], check=True, capture_output=True, text=True)
    assert json.loads(ran.stdout) == [True, False, False]


@pytest.mark.skipif(not all(map(shutil.which, ("sh", "curl", "openssl", "od"))), reason="needs curl and openssl")
def test_the_shell_sample_signs(signed: tuple[dict[str, str], bytes, int]) -> None:
    _, body, _ = signed
    with partner_beside() as partner:
        subprocess.run(
            ["sh", "-c", sample("sh"), "send.sh", partner.url()],
            input=body,
            check=True,
            env={"PATH": os.environ["PATH"], "WEBHOOK_SECRET": SECRET},
        )
    (received,) = partner.received
    assert received.body == body
    assert Webhook(SECRET).verify(received.body, received.headers)["id"] == "evt_1"
    assert abs(int(received.headers["webhook-timestamp"]) - time.time()) < 60


# Reading pages


def prose_of(page: Path) -> str:
    """Without its code, in which brackets are no links."""
    return re.sub(r"`[^`\n]*`", "`code`", FENCE.sub("", page.read_text()))


def code_of(page: Path) -> Iterator[str]:
    """Its fenced blocks, and what stands between backticks."""
    text = page.read_text()
    for block in FENCE.finditer(text):
        yield block["code"]
    for code in re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", FENCE.sub("", text)):
        yield " ".join(code.split())


def anchors_of(page: Path) -> set[str]:
    """As GitHub makes them: lower case, punctuation away, spaces to hyphens."""
    headings = re.findall(r"^#{1,6} (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-") for heading in headings}


def commands_of(page: Path) -> Iterator[list[str]]:
    """Every call of our command, as words; ends at a comment, a pipe or another command."""
    for code in code_of(page):
        for line in code.replace("\\\n", " ").splitlines():
            for call in re.findall(r"(?:^|[\s(;/])webhook-gateway( +[a-z-][^#|;<>&)]*)", line):
                try:
                    words = shlex.split(call)
                except ValueError:
                    words = call.split()
                if words and not page.name.startswith("0002"):
                    yield words


def routes_in(page: Path) -> Iterator[tuple[str, str]]:
    """Method (or nothing) and path of every route of the API that is named."""
    for code in code_of(page):
        yield from ROUTE.findall(code)


@cache
def python_files() -> list[Path]:
    rooms = ("src", "tests", "bench", "examples", "clients", "migrations")
    return [file for room in rooms for file in (CHECKOUT / room).rglob("*.py")]


def files_called(cited: str) -> list[Path]:
    """The project's files whose path ends so."""
    return [file for file in python_files() if file.match(cited)]


@cache
def definitions_of(file: Path) -> dict[str, str]:
    """What is defined in a file, with the text of its value where it has one."""
    found: dict[str, str] = {}
    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found[name] = ""
            case ast.Assign(targets=[ast.Name(id=name)], value=value) | ast.AnnAssign(ast.Name(id=name), value=value):
                found[name] = "" if value is None else ast.unparse(value)
    return found


def lines_of(file: Path, name: str) -> int:
    """The length of a definition (``Class.method``), its decorators included; without a name that of the file."""
    found: Any = ast.parse(file.read_text())
    for part in filter(None, name.split(".")):
        (found,) = (node for node in found.body if part in (getattr(node, "name", ""), *map(assigned, [node])))
    if not name:
        return len(file.read_text().splitlines())
    return int(found.end_lineno - min(node.lineno for node in (found, *getattr(found, "decorator_list", ()))) + 1)


def assigned(node: ast.AST) -> str:
    return node.targets[0].id if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) else ""


def is_about(told: int, true: int) -> bool:
    return abs(told - true) <= max(2, true / 10)


ENDPOINT = Endpoint(UUID(int=1), UUID(int=1), UUID(int=1), 1, "https://partner.example/", ("*",))
PROBED = Health(failures_in_a_row=12, failing_since=940.0, open_until=999.0, openings=1)


def outcome_called(name: str) -> Outcome:
    """One of those that a row of the table is about."""
    remedy = re.search(r"remedy `(\w+)`", name)
    samples: list[Outcome] = [
        Accepted(204),
        Rejected(500),
        TimedOut(Phase.SENT),
        Unreachable("connection_reset"),
        Blocked("private"),
    ]
    by_name: dict[str, Outcome] = {type(outcome).__name__: outcome for outcome in samples}
    (kind, *_) = re.findall(r"\w+", name)
    return Unsendable("it depends", Remedy[remedy[1]]) if remedy else by_name[kind]


def verdict(outcome: Outcome, attempt: int = 1) -> Verdict:
    one = UUID(int=1)
    return decide(Delivery(one, one, one, one, "a.b", attempt, one), ENDPOINT, PROBED, outcome, 1_000.0, 0.5)


def meant_for_delivery(outcome: Outcome) -> str:
    first, last = verdict(outcome).action, verdict(outcome, ENDPOINT.attempts_allowed).action
    name = f"`{type(first).__name__}`"
    if type(first) is not type(last):
        return f"{name}, after the last attempt `{type(last).__name__}`"
    match first:
        case Postpone(delay):
            return f"{name} for about {delay:g} s"
        case GiveUp():
            return f"{name} at once"
        case _:
            return name


def meant_for_endpoint(outcome: Outcome) -> str:
    health = verdict(outcome).health
    if health == PROBED:
        return "nothing"
    if health.failures_in_a_row == 0 and health.open_until is None:
        return "healthy again; the breaker closes"
    assert health.failures_in_a_row == PROBED.failures_in_a_row + 1
    if not isinstance(outcome, Rejected):
        return "a failure"
    asked = {status: verdict(Rejected(status, retry_after=60.0)) for status in range(300, 600)}
    disabling = " and ".join(f"`{status}`" for status, said in asked.items() if said.disable)
    holding = " and ".join(f"`{status}`" for status, said in asked.items() if said.health.retry_after_until)
    return f"a failure. {disabling} disables it. {holding} with `Retry-After` hold it"


def table_of(page: Path, head: str) -> list[list[str]]:
    """The rows below a table's head, as texts."""
    _, found, rest = page.read_text().partition(head + "\n")
    assert found, head
    lines = rest.splitlines()[1:]
    end = next((at for at, line in enumerate(lines) if not line.startswith("|")), len(lines))
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[:end]]


def sample(language: str) -> str:
    """The one block that the partners' guide has marked as tested."""
    text = (DOCS / "partners.md").read_text()
    (found,) = re.findall(rf"<!-- tested: {language} -->\n```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return str(found)


def alerts() -> dict[str, Any]:
    loaded = yaml.safe_load((DOCS / "alerts.yml").read_text())
    assert isinstance(loaded, dict)
    return loaded


# Asking the code


def variables() -> dict[str, str]:
    """By name in the environment: the default as the documentation writes it."""
    return {
        "DATABASE_URL" if name == "database_url" else f"WEBHOOK_GATEWAY_{name.upper()}": written(field.default)
        for name, field in Settings.model_fields.items()
    }


def written(default: object) -> str:
    match default:
        case None:
            return "none"
        case bool():
            return str(default).lower()
        case frozenset() | tuple():
            return ",".join(map(str, sorted(default))) or "none"
        case _:
            return str(default)


def logged() -> Iterator[tuple[str, str]]:
    """Message and level of every log line of the gateway."""
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="log"), attr="debug" | "info" | "warning" | "error" as level),
                    args=[ast.Constant(value=str() as message), *_],
                ):
                    yield message, level
    yield from (("attempt", "info"), ("request", "info"))  # the lines that do not go through the logger


def parts(url: str) -> tuple[FastAPI, Database, Vault]:
    settings = Settings(database_url=url)
    database, vault = Database(url, connections=4), Vault(MasterKeys({"test": bytes(32)}))
    ingest = Ingest(database, vault, Catalogue())
    return create_app(settings, database, vault, Catalogue(), ingest), database, vault


@cache
def routes() -> dict[str, set[str]]:
    """By path, whatever its places are called: the methods."""
    app, _, _ = parts("postgresql://nobody@nowhere.invalid/nothing")
    return {shape(path): {method.upper() for method in item} for path, item in app.openapi()["paths"].items()}


def shape(path: str) -> str:
    return PLACE.sub("{}", path)


async def scrape(database_url: str) -> str:
    """What Prometheus would get."""
    app, database, vault = parts(database_url)
    _, key = await issue_key(database, vault, "prometheus", [Scope.METRICS_READ])
    try:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway.test") as http:
            answer = await http.get("/metrics", headers={"authorization": f"Bearer {key}"})
    finally:
        await database.close()
    assert answer.status_code == httpx.codes.OK, answer.text
    return answer.text
