"""What the server tells about itself: spans, metrics and their way to a collector."""

from statekeep_server.telemetry.spans import current_ids

__all__ = ["current_ids"]
