"""Caches that choose a route, never an answer."""
