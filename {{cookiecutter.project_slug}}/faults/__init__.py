"""What becomes of tasks when processes and servers are killed: `make faults`. See README.md."""
