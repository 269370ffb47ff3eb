"""What helps after an attempt that failed, in a sentence: by its outcome, status and detail, as attempts are kept."""

from __future__ import annotations

from collections.abc import Mapping

from .denials import Denial
from .outcome import Phase
from .unreachable import Trouble

AT_PARTNER = "Tell the partner, whose own server has to be set right; what waits goes out when it is."
OPERATOR = "Tell the operator: it is about the gateway's own side, not the partner's."
REFUSED = (
    "The partner did not accept the signature or the credentials: give it the secret{made}, if it does not hold that "
    "one yet, then send a test. A secret that is lost is rotated."
)
PATH = "The partner has nothing at this path: ask for the right one, then change the endpoint's URL."
STATUSES = {
    401: REFUSED,
    403: REFUSED,
    404: PATH,
    410: PATH,
    413: "The partner takes no body of this size: ask it to, or let the endpoint have less of each event.",
    429: "The partner asks for fewer requests: give the endpoint a rate.",
    3: "The partner answers elsewhere, and a redirect is not followed: ask where, then change the endpoint's URL.",
    4: "The partner refuses this request: read what it answered, and show the partner what was sent.",
    5: "The partner's server failed: ask what its log says of this time. What waits goes out when it is back.",
}
"""By status, or by its first digit."""
PHASES: Mapping[str, str] = {
    Phase.STARTED: "DNS gave no answer in time: ask the partner for its DNS, and the operator for the gateway's.",
    Phase.RESOLVED: "No connection was made in time: ask the partner whether a firewall drops what the gateway sends.",
    Phase.CONNECTED: f"TLS was not agreed on in time. {AT_PARTNER}",
    Phase.SECURED: "The partner did not take the request in time: ask whether it, or the way to it, is overloaded.",
    Phase.SENT: "The partner did not answer in time: it has to answer first and work afterwards, or needs more time.",
}
TROUBLES = {
    **dict.fromkeys((Trouble.RESOLVER_FAILED, Trouble.NETWORK_UNREACHABLE, Trouble.PROXY_FAILED), OPERATOR),
    Trouble.NAME_NOT_FOUND: "Check the spelling of the URL's host, and ask the partner for its DNS.",
    Trouble.CONNECTION_REFUSED: "Ask the partner whether its receiver runs, and on which port.",
    Trouble.TLS_CA_UNKNOWN: "The partner needs a certificate of a public CA, or the endpoint has to know the CA.",
    Trouble.TOKEN_REFUSED: "Ask the partner for what is valid, then give the endpoint these credentials.",
}
GONE = "Nothing helps: ask the system that posted the event to post it again."


def after(outcome: str, status: int | None, detail: str | None, secret_from: str | None = None) -> str | None:
    """None after what succeeded, or has no name here. ``secret_from``: when its newest secret was made, as shown."""
    match outcome:
        case "rejected" if status is not None:
            remedy = STATUSES.get(status) or STATUSES.get(status // 100, STATUSES[4])
            return remedy.replace("{made}", f" made at {secret_from}" if secret_from else "")
        case "timed_out":
            return PHASES.get(detail or "")
        case "unreachable":
            return next((f"{one.sentence} {TROUBLES.get(one, AT_PARTNER)}" for one in Trouble if one == detail), None)
        case "blocked":
            return next((one.sentence for one in Denial if one == detail), None)
        case "unsendable":
            return GONE if detail == "body_gone" else OPERATOR
        case _:
            return None
