"""The migrations, for Alembic: numbered, each in a file of its own, never changed once released."""
