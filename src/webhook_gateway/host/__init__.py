"""What the gateway needs of its machine: processes kept running, a PostgreSQL of its own, a first key."""
