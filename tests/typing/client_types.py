"""The types that a user of the client sees. Checked by mypy, never run."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, assert_type

import pydantic

from statekeep import (
    AsyncClient,
    CheckpointType,
    Client,
    LoadedState,
    RunMetadata,
    Save,
    SaveOutcome,
    SaveResult,
    SnapshotMetadata,
    StatekeepError,
    VersionConflict,
)


@dataclass
class Plan:
    step: int


class Model(pydantic.BaseModel):
    step: int


def make(value: Any) -> Plan:
    return Plan(value["step"])


async def asynchronous(client: AsyncClient) -> None:
    assert_type(await client.save("run", {"step": 1}), SaveResult)
    assert_type(await client.load("run"), LoadedState[Any])
    assert_type(await client.load("run", as_=Plan), LoadedState[Plan])
    assert_type((await client.load("run", version=3, as_=Model)).state, Model)
    assert_type((await client.load("run", as_=make)).state, Plan)
    assert_type(await client.save_many([Save("run", 1)]), list[SaveResult | StatekeepError])
    assert_type(client.list_snapshots("run"), AsyncIterator[SnapshotMetadata])
    assert_type(client.list_runs(user_id="user"), AsyncIterator[RunMetadata])
    assert_type(await client.delete_run("run"), int)
    async with client as opened:
        assert_type(opened, AsyncClient)


def synchronous(client: Client) -> None:
    assert_type(client.save("run", {"step": 1}), SaveResult)
    assert_type(client.load("run"), LoadedState[Any])
    assert_type(client.load("run", as_=Plan), LoadedState[Plan])
    assert_type(client.save_many([Save("run", 1)]), list[SaveResult | StatekeepError])
    assert_type(client.list_snapshots("run"), Iterator[SnapshotMetadata])
    assert_type(client.list_runs(), Iterator[RunMetadata])
    with client as opened:
        assert_type(opened, Client)


def words(result: SaveResult, conflict: VersionConflict, snapshot: SnapshotMetadata) -> None:
    assert_type(result.outcome, SaveOutcome)
    assert_type(result.persisted, bool)
    assert_type(conflict.actual, int | None)
    assert_type(snapshot.expires_at, datetime | None)
    Save("run", {}, checkpoint_type="AUTO")
    Save("run", {}, checkpoint_type=CheckpointType.AUTO)
    Save("run", {}, checkpoint_type="SOMETIMES")  # type: ignore[arg-type]  # a misspelt type is seen
    result.version = 2  # type: ignore[misc]  # results are frozen
