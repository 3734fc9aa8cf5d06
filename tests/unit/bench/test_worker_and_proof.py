"""The demo's agent program and its proof, on a server in memory."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import orjson
import pytest

from statekeep import AsyncClient, SaveResult, Unavailable
from statekeep_server.bench import demo
from statekeep_server.bench.agent import Agent
from statekeep_server.bench.journal import Journal, open_journal, read_journal
from statekeep_server.bench.worker import messages_sha256, work
from tests.support.keepers import FakeKeeper

STEPS = 30


class Server(FakeKeeper):
    """Takes states as dicts, and dies after a number of saves."""

    dies_after: int = 10_000

    async def save(self, run_id: str, state: Any, **options: Any) -> SaveResult:
        if len(self.requests) >= self.dies_after:
            raise Unavailable("killed")
        options = {"content_type": "application/json", **options}
        return await super().save(run_id, orjson.dumps(state), **options)

    async def list_snapshots(self, run_id: str, *, page_size: int) -> Any:
        for kept in self.runs[run_id]:
            yield (await self.load(run_id, version=kept.version)).snapshot


def as_client(server: Server) -> AsyncClient:
    return cast("AsyncClient", server)


async def lived_twice(tmp_path: Path, server: Server, *, dies_after: int = 40) -> Journal:
    path = tmp_path / "journal"
    server.dies_after = dies_after
    with open_journal(path) as journal, pytest.raises(Unavailable):
        await work(as_client(server), journal, "run", seed=5, steps=STEPS)
    server.dies_after = 10_000
    with open_journal(path) as journal:
        await work(as_client(server), journal, "run", seed=5, steps=STEPS)
    return read_journal(path)


def uninterrupted() -> Agent:
    agent = Agent.start(seed=5, steps=STEPS)
    while not agent.done:
        agent.step()
    return agent


@pytest.mark.parametrize("dies_after", [0, 1, 2, 3, 17, 40, 66, 67])
async def test_an_agent_that_died_goes_on_from_what_is_stored(
    tmp_path: Path, dies_after: int
) -> None:
    server = Server()
    journal = await lived_twice(tmp_path, server, dies_after=dies_after)
    assert journal.answer == uninterrupted().answer
    assert journal.messages_sha256 == messages_sha256(uninterrupted().messages)
    assert len(journal.began_at) == 2
    assert len(journal.asked) == len(set(journal.asked)) == len(journal.acknowledged) + 1
    newest = await server.load("run")
    assert newest.state["messages"] == list(uninterrupted().messages)
    beats = [orjson.loads(kept.data)["heartbeat_count"] for kept in server.runs["run"]]
    assert beats == sorted(beats)


def plan(tmp_path: Path) -> Any:
    made = demo._plan(tmp_path, seed=5, steps=STEPS)
    return replace(made, run_id="run")


async def proofs(tmp_path: Path, server: Server, journal: Journal, killed: Journal) -> list[bool]:
    lost = await demo._find_lost(as_client(server), "run", journal)
    found = await demo._prove(as_client(server), plan(tmp_path), killed, journal, lost)
    return [proof.holds for proof in found]


def first_life(journal: Journal) -> Journal:
    return replace(journal, acknowledged=journal.acknowledged[:40])


async def test_what_is_true_is_proved(tmp_path: Path) -> None:
    server = Server()
    journal = await lived_twice(tmp_path, server)
    assert await proofs(tmp_path, server, journal, first_life(journal)) == [True] * 5
    report = await demo._report(as_client(server), plan(tmp_path), first_life(journal), journal)
    assert report.good
    assert report.lost == 0
    assert report.persisted + report.skipped == report.acknowledged == report.asked - 1
    assert report.rows_avoided == 4 * report.skipped
    assert report.to_json()["good"] is True


async def test_a_lost_snapshot_fails_the_proof(tmp_path: Path) -> None:
    server = Server()
    journal = await lived_twice(tmp_path, server)
    gone = server.runs["run"].pop(10)
    assert await proofs(tmp_path, server, journal, first_life(journal)) == [
        False,
        True,
        True,
        True,
        True,
    ]
    lost = await demo._find_lost(as_client(server), "run", journal)
    assert {each.version for each in lost} == {gone.version}


async def test_a_changed_byte_fails_the_proof(tmp_path: Path) -> None:
    server = Server()
    journal = await lived_twice(tmp_path, server)
    server.runs["run"][10].data += b" "
    assert not (await proofs(tmp_path, server, journal, first_life(journal)))[0]


async def test_resuming_from_something_old_fails_the_proof(tmp_path: Path) -> None:
    server = Server()
    journal = await lived_twice(tmp_path, server)
    step, version = journal.began_at[1]
    earlier = replace(journal, began_at=(journal.began_at[0], (step, version - 1)))
    assert await proofs(tmp_path, server, earlier, first_life(journal)) == [
        True,
        False,
        True,
        True,
        True,
    ]


async def test_a_snapshot_out_of_nowhere_fails_the_proof(tmp_path: Path) -> None:
    server = Server()
    journal = await lived_twice(tmp_path, server)
    newest = server.runs["run"][-1]
    for version in (newest.version + 1, newest.version + 2):
        server.runs["run"].append(replace(newest, version=version))
    assert not (await proofs(tmp_path, server, journal, first_life(journal)))[2]


async def test_another_answer_fails_the_proof(tmp_path: Path) -> None:
    server = Server()
    journal = await lived_twice(tmp_path, server)
    other = replace(journal, answer="another")
    assert not (await proofs(tmp_path, server, other, first_life(journal)))[3]
