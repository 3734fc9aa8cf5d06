"""The statekeep server: durable state for AI agents at a fraction of the writes."""

__version__ = "0.1.0"
