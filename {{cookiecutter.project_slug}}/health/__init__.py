"""Probes: is the web process alive, and is it ready for requests? Two questions, two answers."""
