"""An independent judge of every answer to a save, as naive as can be.

It knows the promise and nothing of the server: it drops the ignored fields at the top level, sorts,
writes the rest as text, and compares with the last state that had to be kept. It imports nothing
of the server's domain on purpose.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from statekeep_server.bench.streams import StreamSave

MAY_BE_SKIPPED = ("AUTO", "INTERMEDIATE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server answered to one save, and how long it took.

    Attributes:
        outcome: PERSISTED or SKIPPED.
        reason: Why, in the server's words.
        path: STANDARD or OPTIMIZED.
        sent_s, answered_s: By one clock that never goes back.
    """

    outcome: str
    reason: str
    path: str
    snapshot_id: str
    version: int
    state_sha256: bytes
    sent_s: float
    answered_s: float

    @property
    def duration_s(self) -> float:
        """How long the caller waited."""
        return self.answered_s - self.sent_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the server promises about skipping.

    Attributes:
        skips: Whether the path skips at all.
        ignored_fields: Names of top-level fields that are not compared.
        max_skips: Skips in a row after which a save is persisted.
        max_skip_age_s: Age of the kept snapshot from which on a save is persisted.
    """

    skips: bool
    ignored_fields: tuple[str, ...]
    max_skips: int
    max_skip_age_s: float


@dataclass(frozen=True, slots=True)
class Difference:
    """An answer that is not the one that the promise demands."""

    run_id: str
    save: int
    """The number of the save in its run, from 0."""
    problem: str


class Oracle:
    """Judges the answers of one run that was never written before, in their order.

    Attributes:
        differences: What was wrong so far.
    """

    def __init__(self, run_id: str, rules: Rules) -> None:
        self.differences: list[Difference] = []
        self._run_id = run_id
        self._rules = rules
        self._judged = 0
        self._kept_text: str | None = None
        self._kept_sha256 = b""
        self._kept_id = ""
        self._kept_version = 0
        self._kept_sent_s = 0.0
        self._skips_in_a_row = 0
        self._ids: set[str] = set()

    @property
    def kept_sha256(self) -> bytes:
        """Of the bytes of the last state that had to be kept; empty before the first."""
        return self._kept_sha256

    def judge(self, save: StreamSave, sent: bytes, answer: Answer) -> None:
        """Judge one answer; `sent` are the bytes that the save carried."""
        text = self._comparable(save.state)
        if self._must_keep(save, text, answer):
            self._expect("PERSISTED", answer)
            self._expect_new(answer, hashlib.sha256(sent).digest())
            self._kept_text = text
            self._kept_sha256 = hashlib.sha256(sent).digest()
            self._kept_id = answer.snapshot_id
            self._kept_version += 1
            self._kept_sent_s = answer.sent_s
            self._skips_in_a_row = 0
        else:
            self._expect("SKIPPED", answer)
            self._expect_standing(answer)
            self._skips_in_a_row += 1
        self._judged += 1

    def _must_keep(self, save: StreamSave, text: str, answer: Answer) -> bool:
        if not self._rules.skips or save.is_recovery_point:
            return True
        if save.checkpoint_type not in MAY_BE_SKIPPED:
            return True
        if text != self._kept_text or self._skips_in_a_row >= self._rules.max_skips:
            return True
        # Only the database's clock knows the age; ours knows the most that it can be.
        oldest_s = answer.answered_s - self._kept_sent_s
        return answer.reason == "MAX_SKIP_AGE" and oldest_s >= self._rules.max_skip_age_s

    def _comparable(self, state: Mapping[str, Any]) -> str:
        kept = {
            name: value for name, value in state.items() if name not in self._rules.ignored_fields
        }
        return json.dumps(kept, sort_keys=True)

    def _expect(self, outcome: str, answer: Answer) -> None:
        if answer.outcome != outcome:
            self._differs(f"{answer.outcome} ({answer.reason}), but it had to be {outcome}")

    def _expect_new(self, answer: Answer, sha256: bytes) -> None:
        if answer.outcome != "PERSISTED":
            return
        if answer.version != self._kept_version + 1:
            self._differs(f"version {answer.version} follows {self._kept_version}")
        if not answer.snapshot_id or answer.snapshot_id in self._ids:
            self._differs(f"snapshot id {answer.snapshot_id!r} is not a new one")
        if answer.state_sha256 != sha256:
            self._differs("the SHA-256 is not that of the bytes that were sent")
        self._ids.add(answer.snapshot_id)

    def _expect_standing(self, answer: Answer) -> None:
        standing = (self._kept_id, self._kept_version, self._kept_sha256)
        if (answer.snapshot_id, answer.version, answer.state_sha256) != standing:
            self._differs(
                f"answers with snapshot {answer.snapshot_id!r} of version {answer.version}, but "
                f"{self._kept_id!r} of version {self._kept_version} stands"
            )

    def _differs(self, problem: str) -> None:
        self.differences.append(Difference(self._run_id, self._judged, problem))
