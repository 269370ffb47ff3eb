"""What people do, once a noun: rule, audit entry, notification. A `Change` comes in, a value or a refusal goes out."""
