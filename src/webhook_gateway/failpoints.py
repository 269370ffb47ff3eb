"""Named points at which a fault test may end the process, as kill -9 would.

Armed by ``WEBHOOK_GATEWAY_FAILPOINT=name`` or ``name:3`` (the third time it is reached) and by nothing else; without
the variable `reach` does nothing. `webhook-gateway check` warns when it is set.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "WEBHOOK_GATEWAY_FAILPOINT"

_name, _, _times = os.environ.get(VARIABLE, "").partition(":")
_left = int(_times) if _times.isdigit() else 1


def reach(name: str) -> None:
    """Ends the process here when the point is armed."""
    global _left
    if _name and name == _name:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
