"""Several processes that serve as one: they are started, kept alive and stopped together."""
