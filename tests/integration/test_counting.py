"""What a store counts is what saves and loads cost."""

from tests.support.stores import a_store, an_append, new_key


async def test_health_checks_are_nobodys_statements(database_url: str) -> None:
    """A server checks its database all the time."""
    async with a_store(database_url) as store:
        before = store.statistics().statements
        await store.check()
        assert store.statistics().statements == before
        await store.append_many([an_append(new_key())])
        assert store.statistics().statements > before
