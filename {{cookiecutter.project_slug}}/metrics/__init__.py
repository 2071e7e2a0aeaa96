"""What Prometheus is told: by each worker, by beat, and by the exporter about broker and database."""
