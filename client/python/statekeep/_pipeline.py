"""Pipelines: the states of many steps, held in the client and written once, all or none.

What is written when a pipeline ends well, in one atomic call: every save that is always persisted
(recovery points, conditional saves, every type but AUTO and INTERMEDIATE), and of the others the
newest of each run, as its PIPELINE_COMPLETE. A pipeline that ends with an error writes nothing.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, Unpack

from statekeep._channel import MAX_MESSAGE_BYTES
from statekeep._codec import encode_state
from statekeep._errors import InvalidRequest, StatekeepError
from statekeep._requests import LARGE_BYTES, save_request
from statekeep._types import CheckpointType, Save, SaveOptions, SaveResult

MAX_SAVES = 256
"""What a server takes in one batch."""

FRAME_BYTES = 16
"""A save of a batch takes a few bytes more than by itself."""

SKIPPABLE = frozenset({CheckpointType.AUTO, CheckpointType.INTERMEDIATE})


class PipelineSaves:
    """Collects the saves of a pipeline.

    Attributes:
        results: Of the saves that were written, in the order of `saves`; empty until then.
    """

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._always: list[Save] = []
        self._newest: dict[str, Save] = {}  # by run: what the next save of it replaces
        self._bytes: dict[str, int] = {}  # by request id
        self.results: tuple[SaveResult, ...] = ()

    @property
    def saves(self) -> tuple[Save, ...]:
        """What is to be written, those of a run in their order.

        A call that failed is repeated with these: `save_many(pipeline.saves, atomic=True,
        attempt=2)`.
        """
        complete = CheckpointType.PIPELINE_COMPLETE
        last = (
            replace(save, checkpoint_type=complete, write_behind=False)
            for save in self._newest.values()
        )
        return (*self._always, *last)

    def save(
        self, state: Any, *, run_id: str | None = None, **options: Unpack[SaveOptions]
    ) -> None:
        """Hold a state, with the options of the client's `save`; INTERMEDIATE unless said.

        It is encoded now, so it may change afterwards. Nothing is sent.

        Raises:
            InvalidRequest: It cannot be sent, or the pipeline holds as much as one call takes.
            TypeError, ValueError: As the client's `save` does.
        """
        options.setdefault("checkpoint_type", CheckpointType.INTERMEDIATE)
        data, options["content_type"] = encode_state(state, options.get("content_type", ""))
        run_id = self._run_id if run_id is None else run_id
        save = Save(run_id, data, **options)
        size = save_request(save).ByteSize() + FRAME_BYTES
        replaced = self._newest.get(run_id)
        self._check_room(save, len(data), size, replaced)
        if replaced is not None:
            del self._newest[run_id], self._bytes[replaced.request_id]
        self._bytes[save.request_id] = size
        if _may_be_replaced(save):
            self._newest[run_id] = save
        else:
            self._always.append(save)

    def _check_room(self, save: Save, state_bytes: int, size: int, replaced: Save | None) -> None:
        if save.request_id in self._bytes:
            raise InvalidRequest.of_field("request_id", "is that of another save of the pipeline")
        freed = 0 if replaced is None else self._bytes[replaced.request_id]
        total = sum(self._bytes.values()) - freed + size
        for field, value, limit in (
            ("saves", len(self._bytes) + (replaced is None), MAX_SAVES),
            ("state.data", state_bytes, LARGE_BYTES),
            ("saves", total, MAX_MESSAGE_BYTES),
        ):
            if value > limit:
                message = f"{value} is more than a pipeline holds ({limit})"
                raise InvalidRequest.of_field(field, message, size=value, limit=limit)

    def _written(self, answers: Sequence[SaveResult | StatekeepError]) -> None:
        # Of an atomic batch: all results, or the call had raised.
        self.results = tuple(answer for answer in answers if isinstance(answer, SaveResult))


class AsyncPipeline(PipelineSaves):
    """A pipeline of the asynchronous client."""

    def __init__(
        self,
        write: Callable[[Sequence[Save]], Awaitable[Sequence[SaveResult | StatekeepError]]],
        run_id: str,
    ) -> None:
        super().__init__(run_id)
        self._write = write

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None and self.saves:
            self._written(await self._write(self.saves))


class Pipeline(PipelineSaves):
    """A pipeline of the synchronous client."""

    def __init__(
        self,
        write: Callable[[Sequence[Save]], Sequence[SaveResult | StatekeepError]],
        run_id: str,
    ) -> None:
        super().__init__(run_id)
        self._write = write

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None and self.saves:
            self._written(self._write(self.saves))


def _may_be_replaced(save: Save) -> bool:
    """Whether a newer state of the run makes this one needless."""
    return (
        save.checkpoint_type in SKIPPABLE
        and not save.is_recovery_point
        and save.expected_version is None
        and save.writer_sequence is None
    )
