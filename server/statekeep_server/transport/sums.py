"""The counts of several workers as one: what `GetStats` answers for all of them.

Numbers are added up, whatever the contract calls them, so that a new count is summed without a
word here. What must not be added up is named below.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from statekeep.v1 import admin_service_pb2 as pb

M = TypeVar("M", bound=Message)

HIGHEST = frozenset({"path", "pool_timeout_s", "max_age_s", "oldest_age_s"})
"""The same in every worker, or an age, of which that of the oldest counts."""
MEANS = {"persisted_mean_s": "persisted", "skipped_mean_s": "skipped"}
"""Means, and the count over which each is one."""
FIRST = ("started_at", "arms_since")
"""Moments of which the first counts."""
PER_PATH = frozenset({"paths", "pools", "arms"})
"""Lists that hold one entry for each path."""


def summed(answers: Sequence[pb.GetStatsResponse], *, silent: int) -> pb.GetStatsResponse:
    """Sum the answers of some workers; `silent` more gave none. There is at least one answer."""
    total = _sum(answers)
    for name in FIRST:
        getattr(total, name).CopyFrom(min((getattr(each, name) for each in answers), key=_moment))
    total.silent_workers = silent
    del total.workers[:]
    workers = [worker for each in answers for worker in each.workers]
    total.workers.extend(sorted(workers, key=lambda worker: worker.index))
    return total


def _sum(messages: Sequence[M]) -> M:
    total = type(messages[0])()
    for field in total.DESCRIPTOR.fields:
        values = [getattr(message, field.name) for message in messages]
        if field.name in PER_PATH:
            getattr(total, field.name).extend(_sum_per_path(values))
        elif _is_map(field):
            _add_to(getattr(total, field.name), values)
        elif field.name in HIGHEST:
            setattr(total, field.name, max(values))
        elif field.name in MEANS:
            weights = [getattr(message, MEANS[field.name]) for message in messages]
            setattr(total, field.name, _mean(values, weights))
        elif field.type == FieldDescriptor.TYPE_BOOL:
            setattr(total, field.name, any(values))
        elif field.type != FieldDescriptor.TYPE_MESSAGE:
            setattr(total, field.name, sum(values))
        elif not field.is_repeated:
            present = [value for value in values if value.ByteSize()]
            if present:
                getattr(total, field.name).CopyFrom(_sum(present))
    return total


def _sum_per_path(lists: Sequence[Sequence[Any]]) -> list[Any]:
    per_path: dict[int, list[Any]] = {}
    for entries in lists:
        for entry in entries:
            per_path.setdefault(entry.path, []).append(entry)
    return [_sum(entries) for entries in per_path.values()]


def _add_to(total: Any, maps: Sequence[Any]) -> None:
    for counts in maps:
        for name, count in counts.items():
            total[name] += count


def _mean(means: Sequence[float], weights: Sequence[int]) -> float:
    weighted = sum(mean * weight for mean, weight in zip(means, weights, strict=True))
    return weighted / max(1, sum(weights))


def _is_map(field: Any) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _moment(time: Any) -> tuple[int, int]:
    return (time.seconds, time.nanos)
