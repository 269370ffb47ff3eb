"""Secrets at work: bodies sealed and opened, messages signed, the audit log chained; bytes in, bytes out."""
