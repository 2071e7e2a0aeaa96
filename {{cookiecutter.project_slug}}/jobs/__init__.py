"""Example tasks: one idempotent, one that retries, one periodic. Made to be read, copied and deleted."""
