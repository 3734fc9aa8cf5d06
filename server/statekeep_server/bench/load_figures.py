"""What a load test found: rates and durations by call, and whether the client was the limit."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from statekeep_server.bench.load_plan import LoadPlan
from statekeep_server.service.histogram import Durations, added, quantile_s

BUSY_SHARE = 0.8
"""Of a core: a client process beyond it makes answers wait for itself."""
KEPT_UP_SHARE = 0.98
"""Of the rate that was asked for; less has fallen behind."""
NOTHING = Durations(buckets={})


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFigures:
    """The calls of one kind.

    Attributes:
        calls: Answered inside the measured time.
        errors: Failed calls, those of the warm-up included.
    """

    name: str
    calls: int
    rate: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float
    errors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadFigures:
    """A whole load test.

    Attributes:
        calls: By kind; the last is all of them.
        outcomes: Answers by what the server did.
        errors: Failed calls by the name of their error; `first_errors` has the first text of each.
        client_shares: Of a core, by client process.
        late: Calls of the open loop that could not begin when they were due.
        warnings: What makes the figures doubtful, in sentences.
    """

    plan: LoadPlan
    calls: Sequence[CallFigures]
    outcomes: Mapping[str, int]
    errors: Mapping[str, int]
    first_errors: Mapping[str, str]
    client_shares: Sequence[float]
    late: int
    warnings: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """Everything by name."""
        return asdict(self)


def figures_of(plan: LoadPlan, told: Sequence[Mapping[str, Any]], *, cores: int) -> LoadFigures:
    """Put together what the processes told.

    Args:
        plan: What was to be done.
        told: One of each process.
        cores: Of the machine that the clients run on.
    """
    durations: dict[str, Durations] = {}
    outcomes: Counter[str] = Counter()
    errors: Counter[tuple[str, str]] = Counter()
    first_errors: dict[str, str] = {}
    for each in told:
        for name, fields in each["durations"].items():
            buckets = {int(lower): count for lower, count in fields["buckets"].items()}
            durations[name] = added(
                durations.get(name, NOTHING), Durations(**{**fields, "buckets": buckets})
            )
        outcomes.update(each["outcomes"])
        for name, kind, count in each["errors"]:
            errors[name, kind] += count
        first_errors = {**each["first_errors"], **first_errors}
    failed: Counter[str] = Counter()
    by_kind: Counter[str] = Counter()
    for (name, kind), count in errors.items():
        failed[name] += count
        by_kind[kind] += count
    calls = [_calls(name, each, plan, failed[name]) for name, each in durations.items()]
    if len(calls) > 1:
        whole = NOTHING
        for one in durations.values():
            whole = added(whole, one)
        calls.append(_calls("all", whole, plan, failed.total()))
    shares = [each["cpu_share"] for each in told]
    late = sum(each["late"] for each in told)
    return LoadFigures(
        plan=plan,
        calls=calls,
        outcomes=dict(outcomes),
        errors=dict(by_kind),
        first_errors=first_errors,
        client_shares=shares,
        late=late,
        warnings=_warnings(plan, calls[-1], outcomes, shares, late, cores),
    )


def _calls(name: str, durations: Durations, plan: LoadPlan, errors: int) -> CallFigures:
    return CallFigures(
        name=name,
        calls=durations.count,
        rate=durations.count / plan.duration_s,
        p50_ms=1e3 * quantile_s(durations, 0.50),
        p90_ms=1e3 * quantile_s(durations, 0.90),
        p99_ms=1e3 * quantile_s(durations, 0.99),
        mean_ms=1e3 * durations.sum_s / max(1, durations.count),
        errors=errors,
    )


def _warnings(
    plan: LoadPlan,
    whole: CallFigures,
    outcomes: Mapping[str, int],
    shares: Sequence[float],
    late: int,
    cores: int,
) -> list[str]:
    found = []
    if max(shares) > BUSY_SHARE:
        found.append(
            f"the client is the limit: a client process took {100 * max(shares):.0f} % of a core, "
            "so these figures say more about it than about the server; give it more --processes, "
            "or more machines"
        )
    elif sum(shares) > BUSY_SHARE * cores:
        found.append(
            f"the client is the limit: its processes took {sum(shares):.1f} of the {cores} cores "
            "of this machine; use more machines"
        )
    if plan.rate is not None and whole.rate < KEPT_UP_SHARE * plan.rate:
        found.append(
            f"fell behind: {whole.rate:,.0f} of the {plan.rate:,.0f} calls a second were answered, "
            f"and {late:,} calls could not begin in time with {plan.concurrency:,} under way"
        )
    expected = {"skip": "SKIPPED", "save": "PERSISTED"}.get(str(plan.kind))
    others = sum(count for outcome, count in outcomes.items() if outcome != expected)
    if expected and others:
        found.append(
            f"{others:,} of {sum(outcomes.values()):,} answers were not {expected}: "
            "is the server on the optimized path? (`statekeep info`)"
        )
    return found
