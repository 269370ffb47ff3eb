"""Who changed what, and proof that no entry is missing."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from .shapes import Paging, Shown, examples
from .typed_ids import SUFFIX
from .values import WITHOUT_NUL, Time


class AuditEntry(Shown):
    """Who changed what. Each entry's hash covers the one before it."""

    model_config = examples(
        {
            "sequence": 17,
            "at": "2026-11-23T08:00:00Z",
            "actor": f"key_{SUFFIX}",
            "source": "10.20.1.4",
            "action": "endpoint.pause",
            "target": f"ep_{SUFFIX}",
            "before": {"state": "enabled"},
            "after": {"state": "paused"},
            "hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        }
    )

    sequence: int
    at: datetime
    actor: str = Field(description="A key's id, `oidc:` and a subject, `cli:` and a user, or `gateway`.")
    source: str = Field(description="The client's address.")
    action: str
    target: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    hash: str


class AuditQuery(Paging):
    """Which entries. `since` and `until` bound when it was done."""

    target: str | None = Field(None, max_length=200, pattern=WITHOUT_NUL, description="What was changed.")
    actor: str | None = Field(None, max_length=200, pattern=WITHOUT_NUL, description="Who changed it.")
    since: Time | None = None
    until: Time | None = None


class AuditHead(Shown):
    """The end of the audit log at a moment, signed.

    The signature is Ed25519 over the other members as JSON with sorted members, no white space and only ASCII.
    """

    model_config = examples(
        {
            "tenant": f"ten_{SUFFIX}",
            "sequence": 17,
            "hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "at": "2026-11-23T08:00:00.000000+00:00",
            "key": "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
            "signature": ("5VZDAMNgrHKQhuLMgG6CioSHfx645dl02HPgZSJJAVVfuIIVkKM7rMYeOXAc+bRr0lv18FlbviRlUUFDjnoQCw=="),
        }
    )

    tenant: str
    sequence: int = Field(description="The last entry's; 0 where there is none.")
    hash: str = Field(description="The last entry's, in hexadecimal.")
    at: str = Field(description="When it was signed: a text, since the signature covers it as it is written.")
    key: str = Field(description="The public key: `whpk_` and base64. Note it once, and accept no other.")
    signature: str = Field(description="Base64.")


class AuditVerification(Shown):
    """Whether the chain of entries is whole. Note the last hash elsewhere: it shows that none was cut off the end."""

    model_config = examples(
        {
            "intact": True,
            "entries": 17,
            "broken_at": None,
            "last_hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        }
    )

    intact: bool
    entries: int
    broken_at: int | None = Field(description="The first sequence that doesn't fit.")
    last_hash: str
