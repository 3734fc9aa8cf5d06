"""The client's stream of saves, against a server."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from statekeep import (
    AsyncClient,
    DeadlineExceeded,
    InvalidRequest,
    Save,
    SaveOptions,
    SaveStream,
    ServerNotFound,
    StatekeepError,
    Unavailable,
    VersionConflict,
)
from statekeep_server.config import Settings
from statekeep_server.domain.model import Path
from statekeep_server.transport.server import serve
from tests.support.wire import GatedStore, gate, new_run, open_faulty_wire
from tests.support.world import World, open_world


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[AsyncClient, World]]:
    async with (
        open_faulty_wire(Path.OPTIMIZED) as (wire, world),
        AsyncClient(f"127.0.0.1:{wire.port}") as client,
    ):
        yield client, world


async def test_results_belong_to_their_saves() -> None:
    run_id = new_run()
    async with connected() as (client, _):
        async with client.stream() as stream:
            sent = [await stream.save(run_id, {"step": n}, agent_phase="p") for n in range(300)]
            assert (await sent[7]).version == 8
        assert all(save.done for save in sent)
        results = [await save for save in sent]
        assert [result.version for result in results] == list(range(1, 301))
        assert [result.request_id for result in results] == [save.request_id for save in sent]
        assert (await client.load(run_id)).snapshot.agent_phase == "p"


async def test_many_tasks_may_share_a_stream() -> None:
    async with connected() as (client, _), client.stream() as stream:

        async def work(number: int) -> list[int | None]:
            sent = [await stream.save(f"run-{number}", {"n": n}) for n in range(20)]
            return [(await save).version for save in sent]

        for versions in await asyncio.gather(*map(work, range(20))):
            assert versions == list(range(1, 21))


async def test_a_failed_save_fails_alone_and_names_itself() -> None:
    run_id = new_run()
    async with connected() as (client, _), client.stream() as stream:
        conflict = await stream.save(run_id, 1, expected_version=9, request_id="mine")
        good = await stream.save(run_id, 2)
        with pytest.raises(VersionConflict) as caught:
            await conflict
        assert (caught.value.request_id, caught.value.actual) == ("mine", 0)
        with pytest.raises(InvalidRequest):
            await stream.save(run_id, float("nan"))
        assert (await good).version == 1


async def test_a_failure_that_nobody_saw_is_raised_at_the_end() -> None:
    run_id = new_run()
    async with connected() as (client, _):

        async def work() -> None:
            async with client.stream() as stream:
                await stream.save(run_id, 1, expected_version=9)
                await stream.save(run_id, 2)

        with pytest.raises(VersionConflict):
            await work()
        assert (await client.load(run_id)).state == 2


async def test_an_error_inside_ends_the_stream_at_once() -> None:
    async with connected() as (client, world):
        gated = gate(world)
        sent = []

        async def work() -> None:
            async with client.stream() as stream:
                sent.append(await stream.save("run-1", 1))
                await gated.arrived(1)
                raise ValueError("mine")

        with pytest.raises(ValueError, match="mine"):
            await work()
        with pytest.raises(StatekeepError) as caught:
            await sent[0]
        assert caught.value.request_id == sent[0].request_id
        assert caught.value.outcome_unknown
        gated.gate.set()


async def test_whoever_gives_up_waiting_leaves_the_answer() -> None:
    async with connected() as (client, world), client.stream() as stream:
        gated = gate(world)
        sent = await stream.save("run-1", 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(sent, 0.01)
        gated.gate.set()
        assert (await sent).version == 1


async def test_whoever_gives_up_before_there_is_a_connection_has_sent_nothing() -> None:
    silent = socket.create_server(("127.0.0.1", 0))  # it accepts, and says nothing
    port = silent.getsockname()[1]
    async with AsyncClient(f"127.0.0.1:{port}") as client, client.stream() as stream:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stream.save("run-0", 0), 0.2)
        silent.close()
        async with (
            open_world() as world,
            serve(world.facade, Settings(database_url="memory", port=port), flags=world.follower),
        ):
            sent = [await stream.save(f"run-{number}", number) for number in (1, 2, 3)]
            results = [await save for save in sent]
    assert [one.request_id for one in results] == [save.request_id for save in sent]


async def test_leaving_may_be_cancelled() -> None:
    async with connected() as (client, world):
        gated: GatedStore = gate(world)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2), client.stream() as stream:
                await stream.save("run-1", 1)
        gated.gate.set()


async def test_a_stream_may_have_a_timeout() -> None:
    async with connected() as (client, world):
        gated = gate(world)
        with pytest.raises(DeadlineExceeded):
            async with client.stream(timeout_s=0.2) as stream:
                await stream.save("run-1", 1)
        gated.gate.set()


async def test_a_server_that_stops_says_which_saves_are_to_be_sent_again() -> None:
    async with open_world() as world:
        serving = serve(world.facade, Settings(database_url="memory", port=0), flags=world.follower)
        running = await serving.__aenter__()

        async def save_until_the_end(stream: SaveStream) -> None:
            while True:
                await (await stream.save("run-1", 2, request_id="mine"))
                await asyncio.sleep(0.001)

        async with AsyncClient(f"127.0.0.1:{running.port}") as client, client.stream() as stream:
            first = await stream.save("run-1", 1)
            assert (await first).version == 1
            stopping = asyncio.create_task(serving.__aexit__(None, None, None))
            with pytest.raises(Unavailable) as caught:
                await save_until_the_end(stream)
            assert caught.value.reason == "SHUTTING_DOWN"
            assert caught.value.request_id == "mine"
            await stopping


async def test_a_server_that_is_not_there() -> None:
    async with AsyncClient("127.0.0.1:1") as client:
        with pytest.raises(ServerNotFound):
            async with client.stream() as stream:
                await (await stream.save("run-1", 1))


async def test_misuse_is_said() -> None:
    async with connected() as (client, _):
        stream = client.stream()
        with pytest.raises(RuntimeError, match="not open"):
            await stream.save("run-1", 1)
        async with stream:
            pass
        with pytest.raises(StatekeepError, match="has ended"):
            await stream.save("run-1", 1)
        with pytest.raises(RuntimeError, match="opened before"):
            await stream.__aenter__()


def test_options_are_the_fields_of_a_save() -> None:
    fields = set(Save.__dataclass_fields__) - {"run_id", "state"}
    assert SaveOptions.__annotations__.keys() == fields
