"""Put known faults back, one at a time, and see a test catch each.

Each fault is one that earlier systems of this kind had. It is put into a copy of the server's
code, and the tests named beside it must then fail; a fault that no test notices fails the run, and
so does one whose place in the code is gone.

    python tools/mutants.py [NAME ...]
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "server" / "statekeep_server"
TIMEOUT_S = 180


@dataclass(frozen=True)
class Mutant:
    """A fault: what to replace in which files, and the tests that must notice."""

    name: str
    edits: tuple[tuple[str, str, str], ...]
    tests: tuple[str, ...]


SAVING = "tests/unit/service/test_saving.py"
FALLBACK = "tests/unit/service/test_fallback.py"
CONGRUENT = "tests/property/test_paths_congruent.py"
STATE_SERVICE = "service/state_service.py"
FACADE = "service/facade.py"
WRITE_BEHIND = "service/write_behind.py"
LATE = "tests/unit/service/test_write_behind"
LATE_LAWS = "tests/property/test_write_behind_laws.py"

ANSWER_FROM_CACHE = (
    STATE_SERVICE,
    """\
            if cached is None or cached.comparison_hash == save.comparison_hash:
                result = await self._through_barrier(save, deadline)
""",
    """\
            if cached is None:
                result = await self._through_barrier(save, deadline)
            elif cached.comparison_hash == save.comparison_hash:
                from statekeep_server.domain.model import Reason
                result = SaveResult(
                    outcome=Outcome.SKIPPED, reason=Reason.UNCHANGED, snapshot_id="",
                    version=cached.version, state_sha256=b"", comparison_hash=b"",
                    changed_fields=(), changed_fields_truncated=False, request_id="",
                )
""",
)

MUTANTS = (
    Mutant(
        "01-cache-filled-before-the-write",
        (
            ANSWER_FROM_CACHE,
            (
                STATE_SERVICE,
                "        await self._forget(save.command.key)\n        if self.groups is None:\n",
                "        if self.heads is not None:\n"
                "            await self.heads.put("
                "save.command.key, CachedHead(1, save.comparison_hash))\n"
                "        if self.groups is None:\n",
            ),
        ),
        (f"{FALLBACK}::test_a_failed_write_is_not_remembered",),
    ),
    Mutant(
        "02-skip-check-before-the-type-check",
        (
            (
                "domain/policy.py",
                "    always = persist_always(save.command)\n",
                "    always = None\n",
            ),
            (
                STATE_SERVICE,
                "            or persist_always(command) is not None\n",
                "",
            ),
        ),
        (
            f"{SAVING}::test_other_types_are_persisted_though_nothing_changed",
            f"{SAVING}::test_recovery_points_are_persisted_though_nothing_changed",
        ),
    ),
    Mutant(
        "03-skip-with-an-invented-id",
        (
            (
                "domain/transition.py",
                "        snapshot_id=head.snapshot_id,\n        version=head.version,\n",
                "        snapshot_id='skipped_no_changes',\n        version=head.version,\n",
            ),
        ),
        (f"{SAVING}::test_an_unchanged_automatic_save_is_answered_with_the_standing_snapshot",),
    ),
    Mutant(
        "04-unknown-type-raises",
        (
            (
                "domain/policy.py",
                "    if command.checkpoint_type not in KNOWN_TYPES:\n",
                "    if {name: name for name in KNOWN_TYPES}[command.checkpoint_type] is None:\n",
            ),
        ),
        (f"{SAVING}::test_unknown_types_are_persisted_and_counted",),
    ),
    Mutant(
        "05-fallback-hides-the-first-error",
        (
            (
                "service/both_paths.py",
                "            raise with_both_causes(first, second) from first\n        finally:\n",
                "            raise\n        finally:\n",
            ),
            (
                "service/both_paths.py",
                "        return SaveAck(result, Path.STANDARD, cause)\n",
                "        return SaveAck(result, Path.STANDARD, None)\n",
            ),
        ),
        (
            f"{FALLBACK}::test_both_causes_reach_the_caller",
            f"{FALLBACK}::test_a_failing_step_costs_nothing_but_the_detour",
        ),
    ),
    Mutant(
        "06-the-cache-answers",
        (ANSWER_FROM_CACHE,),
        (
            f"{SAVING}::test_a_cache_that_is_wrong_never_answers",
            "tests/integration/test_linearizable.py",
        ),
    ),
    Mutant(
        "07-a-retry-sees-its-own-hash",
        (
            (
                STATE_SERVICE,
                "        if standing.earlier is not None:\n"
                "            return answer_earlier(save, standing.earlier)\n",
                "",
            ),
            (
                "domain/transition.py",
                "    if earlier is not None:\n"
                "        return Transition(result=answer_earlier(save, earlier))\n",
                "",
            ),
        ),
        (
            f"{SAVING}::test_a_retry_gets_the_first_answer",
            f"{FALLBACK}::test_a_lost_commit_answers_with_the_recorded_result",
        ),
    ),
    Mutant(
        "08-a-b-a-equals-an-old-state",
        (
            (
                "domain/transition.py",
                "        comparison_hash=save.comparison_hash,\n"
                "        state_sha256=save.state_sha256,\n"
                "        field_digests=save.field_digests,\n",
                "        comparison_hash=(head and head.comparison_hash) or save.comparison_hash,\n"
                "        state_sha256=save.state_sha256,\n"
                "        field_digests=save.field_digests,\n",
            ),
        ),
        (f"{SAVING}::test_a_b_a_stores_three", CONGRUENT),
    ),
    Mutant(
        "09-the-state-is-serialised-again",
        (
            (
                "domain/transition.py",
                "        state=command.state,\n",
                "        state=b' '.join(command.state.split()),\n",
            ),
        ),
        ("tests/conformance",),
    ),
    Mutant(
        "10a-expired-snapshots-are-returned",
        (
            (
                "storage/chains.py",
                "    return or_(expires.is_(None), expires > dialect.now_us)\n",
                "    return or_(expires.is_(None), expires > 0)\n",
            ),
        ),
        ("tests/conformance",),
    ),
    Mutant(
        "10b-a-snapshot-is-found-from-another-run",
        (
            (
                "storage/chains.py",
                "snapshots.c.run_id == run_id, selected)",
                'or_(snapshots.c.run_id == run_id, snapshots.c.run_id != ""), selected)',
            ),
        ),
        ("tests/conformance",),
    ),
    Mutant(
        "11a-one-bad-item-fails-the-batch",
        (
            (
                FACADE,
                "                if atomic:\n"
                "                    raise AtomicBatchFailed(index, error) from error\n"
                "                answers[index] = error\n",
                "                raise\n",
            ),
        ),
        (f"{SAVING}::test_a_batch_answers_each_save",),
    ),
    Mutant(
        "11b-a-cancelled-waiter-cancels-the-commit",
        (
            (
                "batching/detached.py",
                "        return await asyncio.shield(self.start(work))\n",
                "        return await self.start(work)\n",
            ),
            (
                "service/state_service.py",
                "        return await asyncio.shield(queued)\n",
                "        return await queued\n",
            ),
        ),
        (f"{FALLBACK}::test_a_cancelled_call_cancels_no_commit", "tests/unit/batching"),
    ),
    Mutant(
        "12a-long-integers-become-floats",
        (
            (
                "domain/canonical.py",
                "    if _may_hold_long_integer(raw):\n        return None\n",
                "",
            ),
        ),
        ("tests/unit/domain", "tests/property/test_canonical_laws.py"),
    ),
    Mutant(
        "12b-duplicate-keys-are-dropped",
        (
            (
                "domain/canonical.py",
                "    if not _is_all([text for _, text in fields], raw, colons):\n"
                "        return None\n",
                "",
            ),
        ),
        ("tests/unit/domain", "tests/property/test_canonical_laws.py"),
    ),
    Mutant(
        "write-behind-over-another-server",
        ((WRITE_BEHIND, "            expected_version=held.base.version,\n", ""),),
        (
            f"{LATE}.py::test_what_another_server_wrote_is_never_written_over",
            f"{LATE}.py::test_a_run_that_another_server_deleted_stays_deleted",
            LATE_LAWS,
        ),
    ),
    Mutant(
        "write-behind-forgotten-when-the-server-stops",
        (
            (
                WRITE_BEHIND,
                "                while self._buffer:\n",
                "                while False:\n",
            ),
        ),
        (f"{LATE}_failures.py::test_a_server_that_stops_writes_all",),
    ),
    Mutant(
        "write-behind-after-a-durable-save",
        (
            (
                WRITE_BEHIND,
                "        await self._write(save.command.key)\n        return",
                "        return",
            ),
        ),
        (f"{LATE}.py::test_a_durable_save_comes_after_what_is_held", LATE_LAWS),
    ),
    Mutant(
        "a-save-comes-back-though-nobody-waits",
        (("batching/turns.py", "if failed and not self._is_over:", "if failed:"),),
        (
            "tests/unit/batching/test_turns.py"
            "::test_work_that_fails_after_its_owner_went_does_not_come_back",
        ),
    ),
    Mutant(
        "a-cancelled-probe-says-nothing",
        (
            (
                "service/both_paths.py",
                "        except asyncio.CancelledError as gone:\n"
                "            self.judge(path, gone)\n"
                "            raise\n",
                "",
            ),
        ),
        (f"{FALLBACK}::test_a_probe_whose_caller_went_lets_another_one_probe",),
    ),
    Mutant(
        "write-behind-of-a-retry-once-more",
        (
            (
                WRITE_BEHIND,
                "        if self._buffer.answered_before(save):\n",
                "        if False:\n",
            ),
        ),
        (f"{LATE}.py::test_a_retry_is_answered_again_and_written_once", LATE_LAWS),
    ),
    Mutant(
        "write-behind-replaces-what-may-be-written",
        (
            (
                WRITE_BEHIND,
                "        if held is not None and held.failures:\n",
                "        if False:\n",
            ),
        ),
        (f"{LATE}_failures.py::test_a_state_that_could_not_be_written_is_not_replaced",),
    ),
    Mutant(
        "write-behind-without-a-bound",
        (
            (
                "service/write_buffer.py",
                "        return runs <= self._limits.max_runs and size_bytes",
                "        return True or size_bytes",
            ),
        ),
        (f"{LATE}.py::test_beyond_a_bound_saves_are_durable", LATE_LAWS),
    ),
)


def main() -> None:
    """Run the mutants named, or all."""
    wanted = sys.argv[1:]
    chosen = [m for m in MUTANTS if not wanted or any(name in m.name for name in wanted)]
    survivors = [mutant.name for mutant in chosen if not caught(mutant)]
    print(f"{len(chosen) - len(survivors)} caught, {len(survivors)} survived")
    if survivors:
        sys.exit(f"not noticed by any test: {', '.join(survivors)}")


def caught(mutant: Mutant) -> bool:
    """Whether every test named fails with the fault in place."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / PACKAGE.name
        shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        for name, old, new in mutant.edits:
            code = (copy / name).read_text(encoding="utf-8")
            if code.count(old) != 1:
                sys.exit(f"{mutant.name}: its place in {name} is gone; bring it up to date")
            (copy / name).write_text(code.replace(old, new), encoding="utf-8")
        noticed = [not passes(test, folder) for test in mutant.tests]
    for test, failed in zip(mutant.tests, noticed, strict=True):
        print(f"{'caught  ' if failed else 'SURVIVED'} {mutant.name}: {test}", flush=True)
    return all(noticed)


def passes(test: str, folder: str) -> bool:
    """Whether a test passes with the faulty copy before the real package on the path."""
    code = (
        f"import sys; sys.path.insert(0, {folder!r}); import statekeep_server; "
        f"assert statekeep_server.__file__.startswith({folder!r}); "
        "import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    )
    options = ["-x", "-q", "--no-header", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-c", code, *options, test],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((folder, str(ROOT)))},
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode not in {0, 1}:
        sys.exit(f"{test} did not run: {done.stdout.decode()[-2000:]}")
    return done.returncode == 0


if __name__ == "__main__":
    main()
