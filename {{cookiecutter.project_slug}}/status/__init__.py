"""A page in the admin: how queues, workers and schedule are, at a glance and without Grafana."""
