"""Queues that know neither SQL nor gRPC."""
