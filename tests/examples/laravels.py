"""An empty Laravel application, as Debian's packages allow one, on which the guide is followed step by step."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[2]
GUIDE = CHECKOUT / "docs" / "laravel.md"
EMPTY = CHECKOUT / "tests" / "examples" / "laravel"
STEP = re.compile(r"<!-- step: (\w+) -->\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def why_not() -> str:
    """What is missing for Laravel; empty if nothing is."""
    for program in ("php", "composer", "bash", "curl", "openssl"):
        if shutil.which(program) is None:
            return f"needs {program}"
    for library in ("Illuminate/Foundation/Application.php", "GuzzleHttp/autoload.php"):
        asked = ["php", "-r", f"exit(stream_resolve_include_path({library!r}) ? 0 : 1);"]
        if subprocess.run(asked, check=False).returncode:
            return f"needs {library} on PHP's include path (php-laravel-framework, php-guzzlehttp-guzzle)"
    return ""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: str

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Laravel:
    """An application in a folder. It has no process of its own: each call starts PHP, which ends with it."""

    folder: Path

    def sh(self, script: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Runs lines of the guide as bash does where nothing may fail."""
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder.parent,
            env={**environment(), **(env or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )

    def artisan(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["php", "artisan", *arguments],
            cwd=self.folder,
            env={**environment(), **env},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def work(self, **env: str) -> None:
        """Works off every job that is due."""
        ran = self.artisan("queue:work", "--stop-when-empty", "--sleep=0", **env)
        assert ran.returncode == 0, ran.stdout + ran.stderr

    def php(self, code: str, given: Any = None, **env: str) -> Any:
        """Runs code within the application, with `$given`, and returns what it returns."""
        script = (
            "require 'vendor/autoload.php'; $app = require 'bootstrap/app.php';"
            "$app->make(Illuminate\\Contracts\\Console\\Kernel::class)->bootstrap();"
            "$given = json_decode(stream_get_contents(STDIN), true);"
            f"$run = function () use ($app, $given) {{ {code} }}; echo json_encode($run());"
        )
        ran = subprocess.run(
            ["php", "-r", script],
            cwd=self.folder,
            env={**environment(), **env},
            input=json.dumps(given),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return json.loads(ran.stdout)

    def request(
        self, method: str, path: str, body: str, headers: Mapping[str, str] | None = None, **env: str
    ) -> Answer:
        """A request through the whole of Laravel, without a socket."""
        code = (
            "[$method, $path, $headers, $body] = $given;"
            "$server = ['CONTENT_TYPE' => 'application/json', 'HTTP_ACCEPT' => 'application/json'];"
            "foreach ($headers as $name => $value) $server['HTTP_' . strtoupper(strtr($name, '-', '_'))] = $value;"
            "$request = Illuminate\\Http\\Request::create($path, $method, [], [], [], $server, $body);"
            "$answer = $app->make(Illuminate\\Contracts\\Http\\Kernel::class)->handle($request);"
            "return ['status' => $answer->getStatusCode(), 'body' => $answer->getContent()];"
        )
        return Answer(**self.php(code, [method, path, dict(headers or {}), body], **env))

    def rows(self, table: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.php(f"return Illuminate\\Support\\Facades\\DB::table('{table}')->get();")
        return found

    def copy(self, to: Path) -> "Laravel":
        """Another application with the same code and settings, and with a database of its own, which is empty."""
        shutil.copytree(self.folder, to, symlinks=True)
        settings = (to / ".env").read_text().replace(str(self.folder), str(to))
        (to / ".env").write_text(settings)
        (to / "database" / "database.sqlite").write_bytes(b"")
        (to / "storage" / "logs" / "laravel.log").unlink(missing_ok=True)
        shutil.rmtree(to / "storage" / "framework" / "cache" / "data")
        other = Laravel(to)
        assert other.artisan("migrate", "--force").returncode == 0
        return other


def environment() -> dict[str, str]:
    """Without what would win over an application's .env."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("WEBHOOK_", "GATEWAY_", "DB_"))}


def steps() -> dict[str, str]:
    """The guide's commands, by the name of the step."""
    return dict(STEP.findall(GUIDE.read_text()))


@contextmanager
def background(script: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A terminal in which something goes on; ends with the block, together with all that it started."""
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGTERM)  # its own session, so nobody else's
