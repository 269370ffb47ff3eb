"""What people do, each once: a connection, a tenant and an actor come in, a value or a refusal goes out."""
