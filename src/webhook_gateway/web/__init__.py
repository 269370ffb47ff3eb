"""The HTTP API: what an HMS posts to, and what administrators and partners ask."""
