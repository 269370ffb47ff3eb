"""What requests and answers look like. Bodies are strict: an unknown member or a number in quotes is refused.

A module a noun. What several nouns share is in `shapes`, `typed_ids` and `values`.
"""
