"""From the HMS to the outbox: a posted event comes in, is checked, encoded, sealed; its id goes out."""
