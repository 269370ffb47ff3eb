"""What the gateway needs of its machine: processes kept running, and a PostgreSQL of its own."""
