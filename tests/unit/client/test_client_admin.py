"""What the admin service says, field by field: nothing may be dropped on the way."""

from dataclasses import asdict
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from statekeep import AsyncClient, ServingPath
from statekeep.v1 import admin_service_pb2
from tests.support.scripted_server import ScriptedServer, answers

MOMENTS = {"started_at", "arms_since", "at"}


def fill(message: Message, seed: int = 1) -> int:
    """Give every field of a message another value."""
    for field in message.DESCRIPTOR.fields:
        seed += 1
        repeated = hasattr(getattr(message, field.name), "append")
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            numbered = field.message_type.fields_by_name["key"].type != field.TYPE_STRING
            getattr(message, field.name)[seed if numbered else f"key{seed}"] = seed
        elif field.message_type is not None and repeated:
            seed = fill(getattr(message, field.name).add(), seed)
        elif field.message_type is not None:
            seed = fill(getattr(message, field.name), seed)
        elif field.enum_type is not None:
            setattr(message, field.name, 1 + seed % 2)
        elif field.type == field.TYPE_BOOL:
            setattr(message, field.name, True)
        elif field.type == field.TYPE_STRING and repeated:
            getattr(message, field.name).append(f"text{seed}")
        elif field.type == field.TYPE_STRING:
            setattr(message, field.name, f"text{seed}")
        else:
            setattr(message, field.name, seed)
    return seed


def plain(value: Any) -> Any:
    """A message's dict and a value's dict in the same words."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items() if key not in MOMENTS}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    for prefix in ("SERVING_PATH_", "TRIP_LIMIT_"):
        if isinstance(value, str) and value.startswith(prefix):
            return value.removeprefix(prefix)
    if isinstance(value, str) and value.isdecimal():
        return int(value)  # protobuf writes 64-bit integers as text
    return value


async def test_server_info_is_complete(client: AsyncClient, server: ScriptedServer) -> None:
    message = admin_service_pb2.GetServerInfoResponse()
    fill(message)
    server.will("GetServerInfo", answers(message))
    info = await client.server_info()
    assert plain(asdict(info)) == plain(MessageToDict(message, preserving_proto_field_name=True))
    assert isinstance(info.path, ServingPath)


async def test_stats_are_complete(client: AsyncClient, server: ScriptedServer) -> None:
    message = admin_service_pb2.GetStatsResponse()
    fill(message)
    server.will("GetStats", answers(message))
    stats = await client.stats()
    assert plain(asdict(stats)) == plain(MessageToDict(message, preserving_proto_field_name=True))
    assert stats.started_at.tzinfo is not None
