"""The stores: SQLAlchemy Core over PostgreSQL or SQLite, and the one in memory."""
