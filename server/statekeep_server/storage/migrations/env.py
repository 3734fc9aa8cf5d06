"""How Alembic runs the migrations: on the connection that `storage.migrate` hands it.

That connection is in a transaction and holds the lock of migrations; nothing is committed here.
"""

from alembic import context

from statekeep_server.storage.schema import VERSION_TABLE
from statekeep_server.storage.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
