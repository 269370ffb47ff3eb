"""How long a request may take, and what follows from that: leases, and how long each program waits for another to stop.

    token → request → settle │ worker has ended → its supervisor may kill it → whoever runs that may kill both

All in seconds; those WITHIN or AFTER which something happens count from the signal to stop. Files that can't import
this (compose.yaml, systemd units in docs) are compared with it by a test.
"""

LONGEST_DEADLINE = 60.0
"""For one request, the most that an endpoint may be given."""
TOKEN_DEADLINE = 8.0
"""For the request that fetches an OAuth token before it."""
SETTLING = 12.0
"""To write down what became of requests, though the database answers late: three times what a statement may take."""
ENDING = 10.0
"""To end after that, and what each program gives another beyond the time that this one may take by itself."""

LEASE_MARGIN = TOKEN_DEADLINE + 7.0
"""A lease lasts so much longer than the deadline: for the token, for a wait in memory, and to settle."""

WORKER_DRAINS_WITHIN = TOKEN_DEADLINE + LONGEST_DEADLINE + SETTLING
"""A worker waits at most so long for its requests. It waits only for those under way, so usually much less."""
WORKER_KILLED_AFTER = WORKER_DRAINS_WITHIN + ENDING
"""By its supervisor, where it has one."""
WORKER_TREE_KILLED_AFTER = WORKER_KILLED_AFTER + ENDING
"""By whoever runs that: compose, systemd, Kubernetes."""

API_DRAINS_WITHIN = 10.0
"""An API process finishes the requests that it is answering."""
API_KILLED_AFTER = API_DRAINS_WITHIN + ENDING
API_TREE_KILLED_AFTER = API_KILLED_AFTER + ENDING
