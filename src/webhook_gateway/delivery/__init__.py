"""From the outbox to the partner: accepted events come in, signed requests and what became of them go out."""
