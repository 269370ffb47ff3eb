"""HTTP in: who calls is found out, what it costs is bounded; `api` answers in JSON."""
