"""What one call of `append_many` does, decided as a pure function, for every store.

The saves are decided in order. Each sees what the ones before it would leave: a stream that saves
B and then A again must not skip A against the head before B, and a request id given twice is one
save.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from statekeep_server.domain.errors import AtomicBatchFailed, Refused
from statekeep_server.domain.model import Head, RunKey, SaveResult, Snapshot
from statekeep_server.domain.transition import RecordedResult, Transition, Written, apply_save
from statekeep_server.domain.values import value_class
from statekeep_server.service.ports import Append

RequestKey = tuple[RunKey, str]
"""A run and a request id."""


@value_class()
class MovedHead:
    """A head as a call leaves it.

    Attributes:
        newest: The newest snapshot of the call; None when only the writer sequence rose.
    """

    head: Head
    newest: Snapshot | None


@value_class(kw_only=True)
class Decided:
    """What to answer and what to write.

    Attributes:
        answers: A result or a `Refused` for each save, in order.
        written: In order; the versions of a run ascend.
        heads: Only those that move.
        results: By their request.
        now_us: The database's clock, as it was when this was decided.
    """

    answers: tuple[SaveResult | Exception, ...]
    written: tuple[Written, ...]
    heads: Mapping[RunKey, MovedHead]
    results: Mapping[RequestKey, RecordedResult]
    now_us: int

    @property
    def rows(self) -> int:
        """Rows that this inserts or updates: two per snapshot, for its audit record."""
        return 2 * len(self.written) + len(self.heads) + len(self.results)


def request_key(append: Append) -> RequestKey:
    """Name the request of a save."""
    return append.save.command.key, append.save.command.request_id


def decide_all(
    appends: Sequence[Append],
    *,
    heads: Mapping[RunKey, Head],
    earlier: Mapping[RequestKey, RecordedResult],
    now_us: int,
    new_id: Callable[[int], str],
    atomic: bool,
) -> Decided:
    """Decide the saves of one call.

    Args:
        appends: The saves.
        heads: The heads of their runs, locked; runs never written are left out.
        earlier: What is recorded of their requests.
        now_us: The database's clock, read after the heads were locked.
        new_id: Makes the id of a snapshot with a version.
        atomic: Whether the first refused save fails all.

    Raises AtomicBatchFailed when `atomic`.
    """
    answers: list[SaveResult | Exception] = []
    written: list[Written] = []
    moved: dict[RunKey, MovedHead] = {}
    recorded: dict[RequestKey, RecordedResult] = {}
    for index, append in enumerate(appends):
        key, request = append.save.command.key, request_key(append)
        pending = moved.get(key)
        head = pending.head if pending else heads.get(key)
        try:
            transition = apply_save(
                append.save,
                head=head,
                earlier=recorded.get(request) or earlier.get(request),
                now_us=now_us,
                rules=append.rules,
                skips_in_a_row=append.skips_in_a_row,
                snapshot_id=new_id((head.version if head else 0) + 1),
                shadow=append.shadow,
            )
        except Refused as error:
            if atomic:
                raise AtomicBatchFailed(index, error) from error
            answers.append(error)
            continue
        answers.append(transition.result)
        if transition.written:
            written.append(transition.written)
        after = _moved(transition, pending)
        if after:
            moved[key] = after
        if transition.record_result:
            kept = transition.result
            if kept.would is not None:
                kept = replace(kept, would=None)
            recorded[request] = RecordedResult(kept, append.save.fingerprint)
    return Decided(
        answers=tuple(answers),
        written=tuple(written),
        heads=moved,
        results=recorded,
        now_us=now_us,
    )


def _moved(transition: Transition, pending: MovedHead | None) -> MovedHead | None:
    if transition.written:
        return MovedHead(transition.written.head, transition.written.snapshot)
    if transition.raised_head:
        return MovedHead(transition.raised_head, pending.newest if pending else None)
    return None
