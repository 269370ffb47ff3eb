"""Webhook delivery for hospitals: what is accepted is delivered, signed, retried, in order, and private."""

__version__ = "0.1.0"
