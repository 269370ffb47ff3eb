"""What the gateway decides, as pure functions over values.

Nothing in here does I/O, reads a clock, draws a random number or waits: ``now`` and ``chance`` are arguments.
That is what makes "why was this retried?" answerable with a unit test.
"""
