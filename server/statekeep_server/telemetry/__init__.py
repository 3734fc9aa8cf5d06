"""What the server tells about itself: spans, metrics and their way to a collector."""
