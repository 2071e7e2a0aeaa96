"""The project's own user model, there from the first migration: replacing Django's later is hard."""
