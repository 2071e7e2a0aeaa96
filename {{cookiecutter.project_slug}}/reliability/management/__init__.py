"""The commands of `reliability`."""
