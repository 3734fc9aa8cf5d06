"""What `make load` runs: ghz against a server of its own, and what it reports."""
