"""gRPC: the only package, beside app, that knows it."""
