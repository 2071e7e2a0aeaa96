"""Management commands, found by Django."""
