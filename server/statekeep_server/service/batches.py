"""Saves of many states in one call, over both paths."""

from collections.abc import Sequence

from statekeep_server.domain.errors import AtomicBatchFailed, Refused
from statekeep_server.domain.model import Path, PreparedSave, SaveResult
from statekeep_server.flags import Flags
from statekeep_server.service.answers import FallbackCause, SaveAck
from statekeep_server.service.both_paths import BothPaths, next_attempt
from statekeep_server.service.causes import with_both_causes
from statekeep_server.service.deadline import Deadline
from statekeep_server.service.groups import is_the_databases_fault


class Batches:
    """Saves batches on the paths of their runs."""

    def __init__(self, paths: BothPaths) -> None:
        self._paths = paths

    async def save(
        self,
        flags: Flags,
        saves: Sequence[PreparedSave],
        deadline: Deadline,
        *,
        atomic: bool,
    ) -> Sequence[SaveAck | Exception]:
        """Save a batch, each run on its path; the saves of a run keep their order.

        An atomic batch is one transaction, so on one path: standard, unless all runs are optimized.
        """
        paths = [flags.path_of(save.command.key) for save in saves]
        if atomic or len(set(paths)) < 2:
            path = Path.STANDARD if Path.STANDARD in paths else Path.OPTIMIZED
            return await self._save_on(path, saves, deadline, atomic=atomic)
        answers: dict[int, SaveAck | Exception] = {}
        for path in Path:
            indexes = [index for index, other in enumerate(paths) if other is path]
            part = [saves[index] for index in indexes]
            try:
                acks = await self._save_on(path, part, deadline, atomic=False)
            except Exception as error:  # noqa: BLE001  # the other part is told its own answer
                acks = [error] * len(part)
            answers.update(zip(indexes, acks, strict=True))
        return [answers[index] for index in range(len(saves))]

    async def _save_on(
        self, path: Path, saves: Sequence[PreparedSave], deadline: Deadline, *, atomic: bool
    ) -> Sequence[SaveAck | Exception]:
        """Save a batch on one path; when the path fails, start again where it may still work."""
        service = self._paths.service(path)
        try:
            self._paths.admit(path)
            results = await service.save_many(saves, deadline, atomic=atomic)
        except (Refused, AtomicBatchFailed) as error:
            self._paths.judge(path, error)
            raise
        except Exception as first:
            self._paths.judge(path, first)
            if path is Path.OPTIMIZED:
                return await self._save_all_standard(saves, deadline, first, atomic=atomic)
            if atomic or is_the_databases_fault(first):
                service.counters.failed(first)
                raise
            return [await self._save_alone(save, deadline) for save in saves]
        failed = {
            index: result
            for index, result in enumerate(results)
            if path is Path.OPTIMIZED
            and isinstance(result, Exception)
            and not isinstance(result, Refused)
        }
        self._paths.judge(path, next(iter(failed.values()), None))
        acks = _acks(results, path)
        for index, cause in failed.items():  # in order: saves of a run fail together
            acks[index] = await self._save_failed(saves[index], deadline, cause)
        return acks

    async def _save_failed(
        self, save: PreparedSave, deadline: Deadline, first: Exception
    ) -> SaveAck | Exception:
        """Save one item that failed in a batch which did not, through standard."""
        answer = await self._save_alone(save, deadline, self._paths.falling_back(first))
        return answer if isinstance(answer, SaveAck) else with_both_causes(first, answer)

    async def _save_all_standard(
        self,
        saves: Sequence[PreparedSave],
        deadline: Deadline,
        first: Exception,
        *,
        atomic: bool,
    ) -> Sequence[SaveAck | Exception]:
        """Save a batch through standard after the optimized path failed."""
        cause = self._paths.falling_back(first)
        attempts = [next_attempt(save) for save in saves]
        try:
            results = await self._paths.standard.save_many(attempts, deadline, atomic=atomic)
        except (Refused, AtomicBatchFailed):
            raise
        except Exception as second:  # noqa: BLE001  # the fallback keeps it
            if atomic or is_the_databases_fault(second):
                self._paths.standard.counters.failed(second)
                raise with_both_causes(first, second) from first
            return [await self._save_alone(save, deadline, cause) for save in attempts]
        return _acks(results, Path.STANDARD, cause)

    async def _save_alone(
        self, save: PreparedSave, deadline: Deadline, cause: FallbackCause | None = None
    ) -> SaveAck | Exception:
        """Save one item of a batch that failed as a whole: the poisoned one alone fails."""
        try:
            async with self._paths.standard.turns.of(save.command.key) as turn:
                result = await self._paths.standard.save(next_attempt(save), deadline, turn)
        except Exception as error:  # noqa: BLE001  # answered to the item's own caller
            self._paths.standard.counters.failed(error)
            return error
        return SaveAck(result, Path.STANDARD, cause)


def _acks(
    results: Sequence[SaveResult | Exception], path: Path, cause: FallbackCause | None = None
) -> list[SaveAck | Exception]:
    """Turn the results of a batch into answers."""
    return [
        SaveAck(result, path, cause) if isinstance(result, SaveResult) else result
        for result in results
    ]
