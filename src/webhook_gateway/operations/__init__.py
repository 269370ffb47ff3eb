"""What people do, once: rule, audit entry and notification. a `Change` comes in, a value or a refusal goes out."""
