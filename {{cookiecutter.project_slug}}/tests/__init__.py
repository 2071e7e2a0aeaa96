"""The project's tests: real servers, real workers, real signals."""
