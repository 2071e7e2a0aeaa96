"""How the status page writes numbers."""
