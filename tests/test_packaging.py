"""What is shipped: a wheel that can migrate by itself, locks that name every byte, an image and a compose file that
open nothing which need not be open."""

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from webhook_gateway.crypto import signatures
from webhook_gateway.rules.signing import encode_secret

CHECKOUT = Path(__file__).parents[1]
LOCKS = [CHECKOUT / "requirements" / name for name in ("build.txt", "dev.txt", "runtime.txt")]
SECRET = encode_secret(bytes(32))
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", re.MULTILINE)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built without a network, from the locked build backend."""
    target = tmp_path_factory.mktemp("wheel")
    script = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    built = subprocess.run(
        [sys.executable, "-c", script, str(target)], cwd=CHECKOUT, check=True, capture_output=True, text=True
    )
    return target / built.stdout.split()[-1]


def test_the_wheel_holds_the_package_its_types_its_catalogue_its_migrations_and_its_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for needed in (
        "__init__.py",
        "py.typed",
        "intake/catalogue.json",
        "host/embedded_postgres.py",
        "_migrations/env.py",
    ):
        assert f"webhook_gateway/{needed}" in names
    revisions = {path.name for path in (CHECKOUT / "migrations" / "versions").glob("*.py")}
    assert revisions == {Path(name).name for name in names if name.startswith("webhook_gateway/_migrations/versions/")}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_holds_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
        assert not [name for name in archive.namelist() if "__pycache__" in name or name.endswith(".pyc")]
    assert {top for top in tops if not top.endswith(".dist-info")} == {"webhook_gateway"}


def test_an_installed_wheel_knows_its_newest_revision_without_a_checkout(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    script = "from webhook_gateway.store import migrate; print(migrate.migrations(), migrate.head())"
    asked = subprocess.run(
        [sys.executable, "-P", "-c", script],
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    )
    place, revision = asked.stdout.split()
    assert Path(place) == tmp_path / "webhook_gateway" / "_migrations"
    assert revision


def test_the_wheel_brings_the_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        entry_points = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "webhook-gateway = webhook_gateway.cli:main" in archive.read(entry_points).decode()


@pytest.fixture(scope="module")
def core(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts of an environment in which the wheel alone was installed, with what it needs as it is locked."""
    place = tmp_path_factory.mktemp("core")
    (place / "locked.txt").write_text("\n".join(map("==".join, PIN.findall(LOCKS[2].read_text()))))
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(place / "locked.txt")]
    subprocess.run([str(place / "bin" / "python"), *install, str(wheel)], check=True)
    return place / "bin"


def in_core(core: Path, *command: str, stdin: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(core), "HOME": str(core), **settings}
    return subprocess.run(
        [str(core / command[0]), *command[1:]], cwd="/", env=environment, input=stdin, capture_output=True, text=True
    )


@pytest.mark.slow
def test_the_core_is_at_most_twelve_packages(core: Path) -> None:
    listed = in_core(core, "python", "-m", "pip", "list", "--format=json", "--disable-pip-version-check")
    packages = {one["name"] for one in json.loads(listed.stdout)} - {"pip", "setuptools"}
    assert "hms-webhook-gateway" in packages
    assert len(packages) <= 12, packages


@pytest.mark.slow
def test_the_core_signs_verifies_listens_and_posts(core: Path) -> None:
    private = signatures.new_private_key()
    for secret, key in ((SECRET, SECRET), (private, signatures.public_key_of(private))):
        made = in_core(core, "webhook-gateway", "sign", "--id", "evt_1", "--json", stdin="{}", WEBHOOK_SECRET=secret)
        headers = json.loads(made.stdout)
        signed = ("--id=evt_1", "--timestamp", headers["webhook-timestamp"])
        verify = ("webhook-gateway", "verify", "--secret", key, *signed, "--signature", headers["webhook-signature"])
        assert in_core(core, *verify, stdin="{}").stdout == "valid\n"
        assert in_core(core, *verify, stdin="[]").returncode == 1
    listen = [str(core / "webhook-gateway"), "listen", "-p", "0", "--json"]
    with subprocess.Popen(listen, env={"WEBHOOK_SECRET": SECRET}, stderr=subprocess.PIPE, text=True) as listener:
        assert listener.stderr is not None
        url = listener.stderr.readline().split()[2]
        script = (
            "import sys; from webhook_gateway.client import Gateway, Refused\n"
            "try: Gateway(sys.argv[1], 'whk_x').post_event('a.b', {})\n"
            "except Refused as refused: print(refused.status)"
        )
        assert in_core(core, "python", "-c", script, url).stdout == "401\n", "it is no gateway, but it answers"
        listener.terminate()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("serve",), "serve needs the gateway, and typer is not installed: pip install 'hms-webhook-gateway[server]'"),
        (("sign",), "give --secret"),
        (("verify", "--any"), "--any is unknown"),
        (("listen", "--secret", SECRET, "--port", "http"), "--port: give a number from 0 to 65535"),
    ],
)
def test_the_core_says_what_to_install_and_what_is_wrong(core: Path, command: tuple[str, ...], said: str) -> None:
    found = in_core(core, "webhook-gateway", *command)
    assert (found.returncode, said in found.stderr, "Traceback" in found.stderr) == (2, True, False), found.stderr
    assert "--secret" in in_core(core, "webhook-gateway", "verify", "--help").stdout


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_locked_package_has_hashes_and_names_no_index(lock: Path) -> None:
    text = lock.read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert lines
    for line in lines:
        assert PIN.match(line), line
        assert "--hash=sha256:" in line, line
    assert "://" not in text


def test_what_is_tested_is_what_is_shipped() -> None:
    build, dev, runtime = ({**dict(PIN.findall(lock.read_text()))} for lock in LOCKS)
    assert runtime.items() <= dev.items()
    assert build.items() <= dev.items()


def test_the_strangers_distribution_with_our_commands_name_is_never_required() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    assert project["project"]["name"] == "hms-webhook-gateway"
    required = [
        *project["project"]["dependencies"],
        *(name for group in project["project"]["optional-dependencies"].values() for name in group),
        *(name for group in project["dependency-groups"].values() for name in group),
        *(name for lock in LOCKS for name, _ in PIN.findall(lock.read_text())),
    ]
    assert not [name for name in required if re.match(r"webhook[-_.]?gateway\b", name)]


def test_the_image_runs_without_root_from_locked_wheels() -> None:
    lines = (CHECKOUT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    instructions = [line.split(maxsplit=1) for line in lines if line and not line.startswith(("#", " "))]
    final = instructions[max(i for i, (verb, _) in enumerate(instructions) if verb == "FROM") :]
    assert [rest for verb, rest in final if verb == "USER"] == ["10001:10001"]
    assert not [verb for verb, _ in final if verb in {"RUN", "ADD"}]
    assert [json.loads(rest) for verb, rest in final if verb == "ENTRYPOINT"] == [["webhook-gateway"]]
    for verb, rest in instructions:
        if verb == "RUN":
            for install in re.findall(r"pip install [^&]*", rest):
                assert "--require-hashes --only-binary=:all:" in install or "--no-deps --no-index" in install


def test_the_image_is_built_from_nothing_but_what_it_needs() -> None:
    patterns = (CHECKOUT / ".dockerignore").read_text().splitlines()
    assert "*" in patterns
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (CHECKOUT / "Dockerfile").read_text(), re.MULTILINE)
    for source in " ".join(copied).split():
        assert f"!{source}" in patterns
        assert (CHECKOUT / source).exists()


@pytest.fixture
def compose() -> dict[str, Any]:
    loaded = yaml.safe_load((CHECKOUT / "compose.yaml").read_text())
    assert isinstance(loaded, dict)
    return loaded


def test_no_container_can_write_to_its_image_or_gain_privileges(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not service.get("privileged")
        assert "SYS_ADMIN" not in service.get("cap_add", [])


def test_compose_holds_no_password_and_none_has_a_default(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|KEY|SECRET|TOKEN", name):
                assert value.startswith("/run/secrets/"), name
        assert not re.search(r"://[^/@]*:[^/@]*@", json.dumps(service))
    assert all(list(secret) == ["file"] for secret in compose["secrets"].values())


def test_only_the_api_is_published_and_only_to_this_machine(compose: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert list(published) == ["api"]
    assert all(port.startswith("127.0.0.1:") for port in published["api"])
    assert compose["services"]["postgres"]["networks"] == ["inside"]
    assert compose["networks"]["inside"]["internal"] is True


def test_nothing_starts_before_the_schema_is_there(compose: dict[str, Any]) -> None:
    for name in ("api", "worker"):
        waits_for = compose["services"][name]["depends_on"]
        assert waits_for["migrate"]["condition"] == "service_completed_successfully"
        assert waits_for["postgres"]["condition"] == "service_healthy"


def test_every_make_target_says_what_it_is_for() -> None:
    makefile = (CHECKOUT / "Makefile").read_text()
    for target in re.findall(r"^\.PHONY: (\S+)$", makefile, re.MULTILINE):
        assert re.search(rf"^{target}:.*## \S", makefile, re.MULTILINE), target
