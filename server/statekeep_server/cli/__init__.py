"""The `statekeep` command."""
