"""From the HMS to the outbox: a posted event comes in, is checked, rendered, sealed; its id goes out."""
