"""Where the master keys come from: the environment, or a file that only its owner may read.

Whoever holds them can read every body, so a key file that others may read is refused rather than warned about. Only a
development gateway makes a key by itself: a production one that did would lose patients' data with its disk.
"""

from __future__ import annotations

import base64
import os
import secrets
import stat
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from webhook_gateway.settings import Settings

from .vault import KEY_BYTES, BadMasterKey, MasterKeys

KEY_FILE = "master.key"
LONGEST_KEY_FILE = 65_536
READABLE_BY_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class MasterKeysUnusable(Exception):
    """The message is one sentence for the operator, with the remedy; it never holds a key."""


def load_master_keys(settings: Settings) -> MasterKeys:
    """The keys that the settings name. In development, a key file is made where there is none.

    Raises:
        MasterKeysUnusable: none is set, both are, the file is missing, readable by others, or holds no keys.
    """
    if settings.master_keys is not None and settings.master_key_file is not None:
        raise MasterKeysUnusable(
            "WEBHOOK_GATEWAY_MASTER_KEYS and WEBHOOK_GATEWAY_MASTER_KEY_FILE are both set: keep one of them"
        )
    if settings.master_keys is not None:
        return _parse(settings.master_keys, "WEBHOOK_GATEWAY_MASTER_KEYS")
    if settings.master_key_file is not None:
        return read_key_file(settings.master_key_file)
    if settings.development:
        return read_key_file(make_key_file(data_directory(settings)))
    raise MasterKeysUnusable(
        "no master key is set: run `webhook-gateway keys master` and put its line into a file of mode 0600 named by "
        "WEBHOOK_GATEWAY_MASTER_KEY_FILE (or into WEBHOOK_GATEWAY_MASTER_KEYS)"
    )


def read_key_file(path: Path) -> MasterKeys:
    """The keys in a file.

    Raises:
        MasterKeysUnusable: see `load_master_keys`.
    """
    try:
        with path.open("rb") as file:
            # Asked of the open file, so that it can't be another one by the time it is read.
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & READABLE_BY_OTHERS:
                raise MasterKeysUnusable(
                    f"the master key file {path} has mode {mode:04o}, so others may read it: chmod 600 {path}"
                )
            text = file.read(LONGEST_KEY_FILE).decode("utf-8", errors="replace")
    except OSError as error:
        raise MasterKeysUnusable(
            f"the master key file {path} can't be read ({error.strerror}): check WEBHOOK_GATEWAY_MASTER_KEY_FILE"
        ) from None
    return _parse(text, f"the master key file {path}")


def make_key_file(directory: Path) -> Path:
    """The directory's key file; made, with mode 0600, unless it is there. Safe where several processes start at once.

    Raises:
        MasterKeysUnusable: it can't be written.
    """
    path = directory / KEY_FILE
    if path.exists():
        return path
    draft = directory / f"{KEY_FILE}.{secrets.token_hex(4)}"
    try:
        make_directory(directory)
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123
            file.write(new_master_key() + "\n")
            file.flush()
            os.fsync(file.fileno())
        # A link is made only where nothing has that name: whoever comes second uses the first one's key.
        with suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    except OSError as error:
        raise MasterKeysUnusable(
            f"no master key file can be made in {directory} ({error.strerror}): set WEBHOOK_GATEWAY_DATA to a "
            "directory that this account may write"
        ) from None
    return path


def new_master_key() -> str:
    """A line ``name:base64`` of 32 random bytes. The name is the day, so that one sees which key is the newest."""
    day = datetime.now(UTC).strftime("%Y%m%d")
    return f"m{day}-{secrets.token_hex(2)}:{base64.b64encode(os.urandom(KEY_BYTES)).decode()}"


def data_directory(settings: Settings) -> Path:
    """Where the embedded PostgreSQL and the development key file live, whether it exists or not.

    PostgreSQL never runs as root, and the account that it runs as can't see root's home.
    """
    if settings.data is not None:
        return settings.data.absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/webhook-gateway")
    homes = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(homes) / "webhook-gateway"


def make_directory(path: Path) -> None:
    """With those above it that are missing, each open for passing through only: PostgreSQL's account has to."""
    for directory in reversed([path, *path.parents]):
        if not directory.exists():
            directory.mkdir(exist_ok=True)
            directory.chmod(0o711)


def _parse(text: str, source: str) -> MasterKeys:
    try:
        return MasterKeys.parse(text)
    except BadMasterKey as error:
        raise MasterKeysUnusable(f"{source} can't be used: {str(error)[0].lower()}{str(error)[1:]}") from None
