"""What `make bench` runs: statekeep and its rivals, measured side by side in one run."""
