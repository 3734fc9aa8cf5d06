"""The laws of a run: any sequence of saves, attempts and deletions, against a plain model."""

import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from statekeep_server.domain.audit import AuditRecord, verify_chain
from statekeep_server.domain.errors import RequestIdReused, StaleWriter, VersionConflict
from statekeep_server.domain.model import Head, Outcome, PreparedSave, SaveCommand, Snapshot
from statekeep_server.domain.policy import SkipRules
from statekeep_server.domain.transition import (
    RecordedResult,
    Transition,
    apply_delete,
    apply_save,
)
from tests.support import canonical_oracle as oracle
from tests.support.saves import DEFAULT_IGNORED, NOW_US, prepared

MAX_SKIP_AGE_US = 50
STATES = st.fixed_dictionaries(
    {"goal": st.sampled_from(["a", "b"]), "timestamp": st.integers(0, 3)},
    optional={"step": st.sampled_from([1, 1.0])},
)


@dataclass
class Store:
    """What a store would hold of one run."""

    head: Head | None = None
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    audit: list[AuditRecord] = field(default_factory=list)
    results: dict[str, RecordedResult] = field(default_factory=dict)


class Run(RuleBasedStateMachine):
    """One run, kept as a store would keep it."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store()
        self.now_us = NOW_US
        self.sent: list[SaveCommand] = []
        self.kept: Any = None
        self.highest = -1

    def apply(self, save: PreparedSave, *, optimized: bool = True) -> Transition:
        store, request_id = self.store, save.command.request_id
        made = apply_save(
            save,
            head=store.head,
            earlier=store.results.get(request_id),
            now_us=self.now_us,
            rules=SkipRules(max_skip_age_us=MAX_SKIP_AGE_US) if optimized else None,
            skips_in_a_row=0,
            snapshot_id=f"snapshot-{len(store.audit) + 1}",
        )
        if made.written:
            store.head = made.written.head
            store.snapshots[made.written.snapshot.snapshot_id] = made.written.snapshot
            store.audit.append(made.written.audit)
        if made.raised_head:
            store.head = made.raised_head
        if made.record_result:
            store.results[request_id] = RecordedResult(made.result, save.fingerprint)
        return made

    @rule(
        state=STATES,
        checkpoint_type=st.sampled_from(["AUTO", "AUTO", "INTERMEDIATE", "MANUAL", "UNKNOWN_9"]),
        phase=st.sampled_from(["", "planning"]),
        optimized=st.booleans(),
        attempt=st.integers(1, 2),
        sequence=st.none() | st.integers(0, 9),
    )
    def save(
        self,
        state: dict[str, Any],
        checkpoint_type: str,
        phase: str,
        attempt: int,
        sequence: int | None,
        *,
        optimized: bool,
    ) -> None:
        save = prepared(
            state,
            checkpoint_type=checkpoint_type,
            agent_phase=phase,
            attempt=attempt,
            writer_sequence=sequence,
            request_id=f"request-{len(self.sent)}",
        )
        before = self.store.head
        if sequence is not None and sequence < self.highest:
            with pytest.raises(StaleWriter):
                self.apply(save, optimized=optimized)
            assert self.store.head == before
            return
        made = self.apply(save, optimized=optimized)
        self.sent.append(save.command)
        self.highest = max(self.highest, -1 if sequence is None else sequence)
        meaning = [oracle.strip(state, DEFAULT_IGNORED.names), phase]
        age_us = self.now_us - (before.persisted_at_us if before else 0)
        may_skip = (
            optimized
            and checkpoint_type in {"AUTO", "INTERMEDIATE"}
            and self.kept is not None
            and oracle.same(meaning, self.kept)
            and age_us < MAX_SKIP_AGE_US
        )
        assert (made.result.outcome is Outcome.SKIPPED) == may_skip
        if not may_skip:
            old = self.kept[0] if self.kept else {}
            names = {
                name
                for name in old.keys() | meaning[0].keys()
                if not oracle.same(old.get(name, ...), meaning[0].get(name, ...))
            }
            assert made.result.changed_fields == tuple(sorted(names))
            self.kept = meaning
        self.answer_is_real(made, state)

    def answer_is_real(self, made: Transition, state: dict[str, Any]) -> None:
        """The answer names a stored snapshot that means what was sent."""
        snapshot = self.store.snapshots[made.result.snapshot_id]
        head = self.store.head
        assert head is not None
        assert (head.snapshot_id, head.version) == (snapshot.snapshot_id, snapshot.version)
        assert made.result.version == snapshot.version
        assert made.result.state_sha256 == snapshot.state_sha256
        assert snapshot.state is not None
        names = DEFAULT_IGNORED.names
        stored = oracle.strip(json.loads(snapshot.state), names)
        assert oracle.same(stored, oracle.strip(state, names))

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), other_state=st.booleans())
    def try_again(self, data: st.DataObject, *, other_state: bool) -> None:
        command = replace(data.draw(st.sampled_from(self.sent)), attempt=2)
        recorded = self.store.results.get(command.request_id)
        if recorded is None:
            return
        before = self.store.head
        given = {
            name: getattr(command, name)
            for name in ("checkpoint_type", "agent_phase", "attempt", "writer_sequence")
        }
        state = b"{}" if other_state else command.state
        save = prepared(state, request_id=command.request_id, **given)
        if other_state:
            with pytest.raises(RequestIdReused):
                self.apply(save)
        else:
            assert self.apply(save).result == replace(recorded.result, replayed=True)
        assert self.store.head == before

    @rule(wrong=st.integers(1, 3))
    def expect_another_version(self, wrong: int) -> None:
        version = self.store.head.version if self.store.head else 0
        with pytest.raises(VersionConflict):
            self.apply(prepared({}, expected_version=version + wrong, request_id="conflict"))

    @precondition(lambda self: self.store.head and self.store.head.snapshot_id)
    @rule()
    def delete(self) -> None:
        assert self.store.head
        self.store.head, record = apply_delete(self.store.head, now_us=self.now_us)
        self.store.audit.append(record)
        self.store.snapshots.clear()
        self.store.results.clear()
        self.kept = None

    @rule(us=st.integers(1, MAX_SKIP_AGE_US))
    def wait(self, us: int) -> None:
        self.now_us += us

    @invariant()
    def the_chain_is_whole_and_ends_at_the_head(self) -> None:
        audit, head = self.store.audit, self.store.head
        assert verify_chain(audit) is None
        assert [record.version for record in audit] == list(range(1, len(audit) + 1))
        assert (head.version if head else 0) == len(audit)
        assert not audit or (head and head.audit_hash == audit[-1].hash)


Run.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestRun = Run.TestCase
