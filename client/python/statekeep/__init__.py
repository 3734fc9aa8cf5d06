"""The Python client of statekeep."""
