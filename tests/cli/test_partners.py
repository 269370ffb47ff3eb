"""Partners as a file, and the nouns of the API at a terminal: against a real gateway, with a key, and no database."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.rows import store_attempts, store_event, store_finished
from tests.web.serving import Api, running
from webhook_gateway.rules import ids
from webhook_gateway.rules.signing import encode_secret
from webhook_gateway.store import configuration

Cli = Callable[..., subprocess.CompletedProcess[str]]
EXAMPLE = Path(__file__).parents[2] / "examples" / "partners.yaml"
SECRETS = {
    "NORTHSIDE_SECRET": encode_secret(bytes(32)),
    "SOUTHSIDE_CLIENT_SECRET": "of southside",
    "PING_API_KEY": "of ping",
    "ALERTS_TOKEN": "of-alerts",
}
LAB = """\
subscribers:
  - name: Lab
    event_types: [lab_result.*]
    content: full
    endpoints:
      - name: results
        url: https://lab.example.com/in
        headers: {X-Api-Key: !env THEIR_KEY}
        secret: !file secret.txt
"""


@dataclass
class Operator:
    """Somebody who has a key and a file, and no shell on the server."""

    cli: Cli
    api: Api
    key: str
    file: Path

    async def run(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        reached = {"GATEWAY_URL": self.api.url, "GATEWAY_API_KEY": self.key}
        return await asyncio.to_thread(self.cli, *arguments, **{**reached, **settings})

    async def apply(self, *options: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return await self.run("apply", "-f", str(self.file), *options, **settings)

    async def steps(self, *options: str, **settings: str) -> list[list[str]]:
        """What is done, and to whom."""
        found = await self.apply("--json", *options, **settings)
        assert found.returncode in (0, 4), found.stderr
        steps = json.loads(found.stdout)["steps"]
        return [[step["action"], step["subscriber"], *filter(None, [step["endpoint"]])] for step in steps]

    async def audited(self) -> int:
        async with self.api.database.connection() as connection:
            return int(await connection.fetchval("SELECT count(*) FROM audit_log"))

    def write(self, text: str) -> None:
        self.file.write_text(text)


@pytest.fixture
async def operator(cli: Cli, database_url: str, tmp_path: Path) -> AsyncIterator[Operator]:
    async with running(database_url) as api:
        yield Operator(cli, api, await api.make_key("endpoints:write", "endpoints:read"), tmp_path / "partners.yaml")


@pytest.fixture
async def lab(operator: Operator) -> Operator:
    """With one partner, applied."""
    operator.write(LAB)
    (operator.file.parent / "secret.txt").write_text(encode_secret(bytes(32)) + "\n")
    assert await operator.steps(THEIR_KEY="theirs") == [
        ["subscriber.created", "Lab"],
        ["endpoint.created", "Lab", "results"],
    ]
    return operator


async def test_twelve_partners_are_made_by_one_command_and_a_second_one_changes_nothing(operator: Operator) -> None:
    operator.file = EXAMPLE
    planned = await operator.apply("--plan", **SECRETS)
    assert (planned.returncode, await operator.audited()) == (4, 0), planned.stderr
    first = await operator.apply(**SECRETS)
    assert (first.returncode, first.stderr.splitlines()[-1]) == (0, "25 changes applied")
    assert first.stdout.startswith(planned.stdout)
    assert first.stdout.count("whsec_") == 11, "of those endpoints that were given none"
    assert first.stdout.count("\npharmacy prescriptions: whpk_") == 1
    assert not any(secret in first.stdout + first.stderr for secret in SECRETS.values())
    listed = json.loads((await operator.run("subscribers", "list", "--json")).stdout)["items"]
    assert len(listed) == 12
    before = await operator.audited()
    for options in ((), ("--plan",), ("--prune",)):
        again = await operator.apply(*options, **SECRETS)
        assert (again.returncode, again.stdout) == (0, "")
        assert again.stderr == "nothing to do: everything is as the file says\n"
    assert await operator.audited() == before


async def test_what_is_exported_holds_no_secrets_and_changes_nothing_when_it_is_applied(operator: Operator) -> None:
    copy, operator.file = operator.file, EXAMPLE
    await operator.apply(**SECRETS)
    exported = (await operator.run("export")).stdout
    assert not any(secret in exported for secret in SECRETS.values())
    assert "# Not in here, and stays as it is: headers of Ping Texting Service" in exported
    operator.file = copy
    operator.write(exported)
    assert await operator.steps("--prune") == []


async def test_what_differs_is_planned_and_changed_and_nothing_else(lab: Operator) -> None:
    lab.write(LAB.replace("content: full", "content: {level: full, subject: false}") + "        slots: 4\n")
    planned = await lab.apply("--plan", THEIR_KEY="theirs")
    assert (planned.returncode, planned.stderr) == (4, "2 changes pending\n")
    assert planned.stdout.splitlines()[1] == "~ Lab results: changed; slots 10 → 4"
    assert await lab.steps("--plan", THEIR_KEY="theirs") == [
        ["subscriber.changed", "Lab"],
        ["endpoint.changed", "Lab", "results"],
    ]
    assert (await lab.apply(THEIR_KEY="theirs")).returncode == 0
    assert await lab.steps(THEIR_KEY="theirs") == []


async def test_what_the_file_lacks_stays_unless_it_is_pruned_and_the_plan_says_so(lab: Operator) -> None:
    lab.write("subscribers: [{name: Other, endpoints: [{url: https://other.example.com/}]}]")
    created = [["subscriber.created", "Other"], ["endpoint.created", "Other", "https://other.example.com/"]]
    assert await lab.steps("--plan") == created
    pruned = await lab.apply("--plan", "--prune")
    assert pruned.stdout.splitlines()[-1].startswith("- Lab: deleted; name Lab, endpoints 1")
    assert await lab.steps("--prune") == [*created, ["subscriber.deleted", "Lab"]]
    lab.write("subscribers: [{name: Other}]")
    assert await lab.steps() == []
    assert await lab.steps("--prune") == [["endpoint.deleted", "Other", "https://other.example.com/"]]


async def test_a_secret_that_changes_where_it_is_referred_to_is_taken_over_and_the_one_before_still_signs(
    lab: Operator,
) -> None:
    new = encode_secret(bytes(range(32)))
    assert await lab.steps(THEIR_KEY="another") == [["endpoint.changed", "Lab", "results"]]
    (lab.file.parent / "secret.txt").write_text(new)
    assert await lab.steps(THEIR_KEY="another") == [["endpoint.secret_rotated", "Lab", "results"]]
    assert await lab.steps(THEIR_KEY="another") == []
    async with lab.api.database.connection() as connection:
        snapshot = await configuration.snapshot(connection, lab.api.vault)
    (endpoint,) = snapshot.endpoints.values()
    assert endpoint.secrets == (new, encode_secret(bytes(32)))
    assert endpoint.headers == {"X-Api-Key": "another"}


async def test_an_endpoint_is_known_by_its_name_when_its_url_changes_and_by_its_url_until_it_has_a_name(
    operator: Operator,
) -> None:
    one = "subscribers: [{name: Lab, event_types: [lab_result.*], endpoints: [%s]}]"
    operator.write(one % "{url: 'https://lab.example.com/in?token=1'}")
    assert len(await operator.steps()) == 2
    operator.write(one % "{name: results, url: 'https://lab.example.com/in?token=1'}")
    assert await operator.steps() == [["endpoint.changed", "Lab", "https://lab.example.com/in?…"]]
    operator.write(one % "{name: results, url: 'https://elsewhere.example.com/in'}")
    assert await operator.steps() == [["endpoint.changed", "Lab", "results"]]
    assert await operator.steps() == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("        slots: 400", "partners.yaml:10 /subscribers/0/endpoints/0/slots: "),
        ("        slotz: 4", "partners.yaml:10 /subscribers/0/endpoints/0/slotz: Remove it"),
        ("        event_types: [lab_result.fnial]", "partners.yaml:10 /subscribers/0/endpoints/0/event_types/0: "),
        (
            "        event_types: [payment.*]",
            "partners.yaml:10 /subscribers/0/endpoints/0/event_types/0: Its subscriber",
        ),
        ("        signing: ed25519", "partners.yaml:10 /subscribers/0/endpoints/0/signing: It can't be changed"),
        ("      - {name: results, url: https://x.example/}", "partners.yaml:10 /subscribers/0/endpoints/1: Another"),
        (
            "        authorization: {kind: bearer, token: t0ken}",
            "partners.yaml:10 /subscribers/0/endpoints/0/authorization/token: keep secrets out",
        ),
        ("        authorization: {kind: bearer, token: !env NOWHERE}", "set NOWHERE in the environment"),
        ("        tls: {ca: !file nowhere.pem}", "nowhere.pem"),
        (
            "        slots: 4\n        slots: 5",
            "partners.yaml:11 /subscribers/0/endpoints/0: name each member once",
        ),
        ("        filter: &a {x: [1]}\n        content: *a", "has an alias"),
        ("      }", "can't be read"),
        ("        description: !!python/name:os.system x", "unknown: there are !env and !file"),
    ],
)
async def test_what_is_wrong_is_said_by_its_line_and_nothing_is_changed(lab: Operator, line: str, said: str) -> None:
    lab.write(LAB.replace("lab.example.com/in", "elsewhere.example.com/in") + line + "\n")
    before = await lab.audited()
    found = await lab.apply(THEIR_KEY="theirs")
    assert (found.returncode, said in found.stderr) == (2, True), found.stderr
    assert "t0ken" not in found.stderr
    assert await lab.audited() == before


async def test_nouns_are_found_by_name_and_shown_as_the_api_has_them(lab: Operator) -> None:
    shown = json.loads((await lab.run("endpoints", "show", "Lab/results", "--json")).stdout)
    assert shown == json.loads((await lab.run("endpoints", "show", shown["id"], "--json")).stdout)
    assert shown["url"] == "https://lab.example.com/in"
    updated = await lab.run("endpoints", "update", "results", "slots=3", "description=Results only", "--json")
    assert [json.loads(updated.stdout)[name] for name in ("slots", "description")] == [3, "Results only"]
    assert (await lab.run("endpoints", "rotate-secret", "results", "overlap_seconds=0")).stdout.startswith(
        "secret: whsec_"
    )
    made = await lab.run("endpoints", "create", "subscriber_id=Lab", "url=https://lab.example.com/2", "name=second")
    assert made.returncode == 0, made.stderr
    listed = await lab.run("endpoints", "list", "subscriber_id=Lab", COLUMNS="40")
    assert [line.split()[2:] for line in listed.stdout.splitlines()[1:]] == [
        ["second", "https://lab.example.com/2", "enabled"],
        ["results", "https://lab.example.com/in", "enabled"],
    ], "nothing of a table is cut in a pipe"
    assert len((await lab.run("endpoints", "list", "--limit", "1")).stdout.splitlines()) == 2
    assert (await lab.run("endpoints", "delete", "second")).returncode == 0
    kept = await lab.run("subscribers", "delete", "Lab")
    assert (kept.returncode, "force" in kept.stderr) == (1, True), kept.stderr
    unknown = await lab.run("endpoints", "show", "second")
    assert (unknown.returncode, "no endpoints are called second" in unknown.stderr) == (2, True)
    assert (await lab.run("subscribers", "show", "Lab")).stdout.splitlines()[1] == "name: Lab"
    assert (await lab.run("subscribers", "delete", "Lab", "force=true")).returncode == 0


async def test_a_link_to_a_partners_portal_is_made_at_a_terminal(lab: Operator) -> None:
    lab.key = await lab.api.make_key("admin")
    made = await lab.run("subscribers", "portal-links", "Lab", 'capabilities=["test"]', "expires_in_seconds=3600")
    assert made.returncode == 0, made.stderr
    assert "/portal/login#whp_" in made.stdout
    assert 'capabilities: ["test", "view"]' in made.stdout


async def test_an_operators_key_moves_deliveries_and_pauses_endpoints(lab: Operator) -> None:
    lab.key = await lab.api.make_key("endpoints:read", "deliveries:read", "deliveries:write")
    endpoint = json.loads((await lab.run("endpoints", "show", "results", "--json")).stdout)["id"]
    async with lab.api.database.connection() as connection:
        event_id = await store_event(lab.api, connection, lab.api.tenant_id)
        dead = await store_finished(connection, lab.api.tenant_id, ids.parse(ids.ENDPOINT, endpoint), event_id, "dead")
        await store_attempts(connection, lab.api.tenant_id, ids.parse(ids.ENDPOINT, endpoint), dead)
    shown = json.loads((await lab.run("deliveries", "list", "state=dead", "endpoint_id=results", "--json")).stdout)
    assert [one["id"] for one in shown["items"]] == [ids.render(ids.DELIVERY, dead)]
    failing = (await lab.run("problems", "endpoint_id=results")).stdout
    assert endpoint in failing
    assert "503" in failing
    assert (await lab.run("events", "show", ids.render(ids.EVENT, event_id))).returncode == 0
    assert "state: paused" in (await lab.run("endpoints", "pause", "results", "reason=holidays")).stdout
    assert "state: enabled" in (await lab.run("endpoints", "resume", "results")).stdout
    refused = await lab.run("endpoints", "update", "results", "slots=3")
    assert (refused.returncode, "endpoints:write" in refused.stderr) == (1, True)
    wrong = await lab.run("deliveries", "show", "results")
    assert (wrong.returncode, "dlv_" in wrong.stderr) == (2, True)


async def test_a_profile_says_where_the_gateway_is_and_how_to_get_the_key(lab: Operator) -> None:
    home = lab.file.parent
    profiles = home / ".config" / "webhook-gateway" / "profiles.toml"
    profiles.parent.mkdir(parents=True)
    (home / "key").write_text(lab.key + "\n")
    profiles.write_text(
        f'[default]\nurl = "{lab.api.url}"\nkey_file = "{home}/key"\n'
        f'[vault]\nurl = "{lab.api.url}"\nkey_command = "cat \'{home}/key\'"\n[broken]\nurl = "{lab.api.url}"\n'
    )
    alone: dict[str, Any] = {"GATEWAY_URL": "", "GATEWAY_API_KEY": "", "HOME": str(home)}
    assert "Lab" in (await lab.run("subscribers", "list", **alone)).stdout
    assert "Lab" in (await lab.run("subscribers", "list", "--profile", "vault", **alone)).stdout
    for profile, said in (("nobody", "no 'nobody' there"), ("broken", "key_file")):
        found = await lab.run("subscribers", "list", "--profile", profile, **alone)
        assert (found.returncode, said in found.stderr) == (2, True), found.stderr
