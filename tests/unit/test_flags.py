"""Flags: which value holds, which path a run takes, and what is refused."""

import hashlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statekeep_server.domain.model import Path, RunKey
from statekeep_server.flags import (
    ENABLE,
    LOG_LEVEL,
    MONITORING,
    POSITIONS,
    ROLLOUT,
    SHADOW,
    Environment,
    FlagName,
    Flags,
    FlagSource,
    Scope,
    StoredFlag,
    StoredFlags,
    has_scope,
    in_force,
    normalized,
    position_of,
    resolve,
    unusable,
)

KEY = RunKey("acme", "run-1")
ACME = Scope("acme")
RUN = Scope("acme", "run-1")


def stored(*flags: tuple[str, str] | tuple[str, str, Scope]) -> StoredFlags:
    return StoredFlags(
        version=len(flags),
        flags=tuple(
            StoredFlag(
                name=flag[0],
                value=flag[1],
                scope=flag[2] if len(flag) == 3 else Scope(),
                version=1,
                set_by="me",
                set_at_us=1,
            )
            for flag in flags
        ),
    )


@pytest.mark.parametrize(
    ("environment", "value", "expected"),
    [
        (None, None, False),
        (None, "true", True),
        (None, "false", False),
        (True, None, True),
        (True, "true", True),
        (True, "false", False),  # a stored value wins over the environment's
        (False, None, False),
        (False, "true", False),  # except over an explicit false
        (False, "false", False),
    ],
)
def test_which_value_holds(environment: bool | None, value: str | None, *, expected: bool) -> None:
    flags = [] if value is None else [(ENABLE, value), (SHADOW, value)]
    said = Environment(enable_optimized_persistence=environment, shadow=environment)
    found = resolve(said, stored(*flags))
    assert (found.enable_optimized_persistence, found.shadow) == (expected, expected)
    assert found.path is (Path.OPTIMIZED if expected else Path.STANDARD)


def test_monitoring_is_on_where_runs_are_optimized_unless_somebody_says_otherwise() -> None:
    assert not resolve(Environment(), stored()).monitoring
    assert resolve(Environment(), stored((ENABLE, "true"))).monitoring
    assert not resolve(Environment(), stored((ENABLE, "true"), (ROLLOUT, "0"))).monitoring
    assert resolve(Environment(), stored((ENABLE, "true", Scope("acme")))).monitoring
    assert resolve(Environment(), stored((ENABLE, "true", Scope("acme", "run")))).monitoring
    forced_off = Environment(enable_optimized_persistence=False)
    assert not resolve(forced_off, stored((ENABLE, "true", Scope("acme")))).monitoring
    assert resolve(Environment(), stored((MONITORING, "true"))).monitoring
    assert resolve(Environment(monitoring=True), stored()).monitoring
    assert not resolve(Environment(), stored((MONITORING, "false"))).monitoring
    assert not resolve(Environment(monitoring=False), stored((MONITORING, "true"))).monitoring


def test_an_explicit_false_wins_over_what_is_set_for_tenants_and_runs() -> None:
    flags = stored((ENABLE, "true", ACME), (ENABLE, "true", RUN), (ROLLOUT, "100", ACME))
    off = resolve(Environment(enable_optimized_persistence=False), flags)
    assert off.only_path is Path.STANDARD
    assert resolve(Environment(), flags).path_of(KEY) is Path.OPTIMIZED


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([(ENABLE, "true")], POSITIONS),
        ([(ENABLE, "true"), (ROLLOUT, "10")], 1_000),
        ([(ROLLOUT, "10")], 0),  # a share of nothing
        ([(ENABLE, "true"), (ROLLOUT, "0.01")], 1),
        ([(ENABLE, "true"), (ROLLOUT, "10"), (ROLLOUT, "50", ACME)], 5_000),
        ([(ROLLOUT, "50", ACME)], 0),  # the fleet is off, and the tenant follows it
        ([(ROLLOUT, "50", ACME), (ENABLE, "true", ACME)], 5_000),
        ([(ENABLE, "true"), (ROLLOUT, "10"), (ENABLE, "true", ACME)], POSITIONS),
        ([(ENABLE, "true"), (ENABLE, "false", ACME)], 0),
    ],
)
def test_how_many_runs_of_a_tenant_are_optimized(
    flags: list[tuple[str, str]], expected: int
) -> None:
    found = resolve(Environment(), stored(*flags))
    assert found.tenants.get("acme", found.fleet_positions) == expected


def test_the_environment_gives_the_share_until_one_is_stored() -> None:
    said = Environment(enable_optimized_persistence=True, rollout_percent=2.5)
    assert resolve(said, stored()).fleet_positions == 250
    assert resolve(said, stored((ROLLOUT, "7"))).fleet_positions == 700


def test_a_run_of_its_own_answers_first() -> None:
    off = resolve(Environment(), stored((ENABLE, "true"), (ENABLE, "false", RUN)))
    assert off.path_of(KEY) is Path.STANDARD
    assert off.path_of(RunKey("acme", "run-2")) is Path.OPTIMIZED
    assert off.uses(Path.STANDARD)
    assert off.uses(Path.OPTIMIZED)
    on = resolve(Environment(), stored((ENABLE, "false", ACME), (ENABLE, "true", RUN)))
    assert on.path_of(KEY) is Path.OPTIMIZED
    assert on.path_of(RunKey("other", "run-1")) is Path.STANDARD
    assert not resolve(Environment(), stored()).uses(Path.OPTIMIZED)


VECTORS = {
    ("default", "run-1"): 2_590,
    ("default", "run-2"): 6_465,
    ("acme", "run-1"): 2_931,
    ("a", "crun"): 7_299,
    ("ac", "run"): 3_735,
    ("", ""): 6_463,
    ("ünï", "\U0001f600"): 6_009,
}


@pytest.mark.parametrize(("key", "position"), VECTORS.items())
def test_positions_never_change(key: tuple[str, str], position: int) -> None:
    assert position_of(RunKey(*key)) == position


def test_positions_are_what_the_documentation_says() -> None:
    parts = (b"statekeep.rollout.v1", b"acme", b"run-1")
    framed = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    expected = int.from_bytes(hashlib.sha256(framed).digest()[:8], "big") % 10_000
    assert position_of(KEY) == expected


KEYS = st.builds(RunKey, st.text(max_size=20), st.text(max_size=20))


@given(KEYS, st.lists(st.integers(0, POSITIONS), min_size=2, max_size=2))
def test_a_higher_share_only_adds_runs(key: RunKey, shares: list[int]) -> None:
    lower, higher = (Flags(True, rollout=share).path_of(key) for share in sorted(shares))
    assert not (lower is Path.OPTIMIZED and higher is Path.STANDARD)
    assert Flags(True, rollout=POSITIONS).path_of(key) is Path.OPTIMIZED
    assert Flags(True, rollout=0).path_of(key) is Path.STANDARD


def test_a_share_is_a_share() -> None:
    keys = [RunKey("default", f"run-{number}") for number in range(20_000)]
    served = sum(Flags(True, rollout=1_000).path_of(key) is Path.OPTIMIZED for key in keys)
    assert 1_850 < served < 2_150  # 2,000, and three and a half standard deviations


def test_a_name_that_no_run_can_have_has_a_position() -> None:
    assert 0 <= position_of(RunKey("default", "\ud800")) < POSITIONS


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        (ENABLE, " ON ", "true"),
        (SHADOW, "0", "false"),
        (ROLLOUT, "10%", "10"),
        (ROLLOUT, "0.50 %", "0.5"),
        (ROLLOUT, "100", "100"),
        (LOG_LEVEL, "debug", "DEBUG"),
    ],
)
def test_values_are_written_in_one_way(name: FlagName, text: str, value: str) -> None:
    assert normalized(name, text) == value
    assert normalized(name, value) == value


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        (ENABLE, "yess", "true, 1, yes, on, false, 0, no, off"),
        (ROLLOUT, "101", "from 0 to 100"),
        (ROLLOUT, "-1", "from 0 to 100"),
        (ROLLOUT, "nan", "from 0 to 100"),
        (ROLLOUT, "1.005", "two decimals"),
        (LOG_LEVEL, "LOUD", "DEBUG, INFO, WARNING, ERROR, CRITICAL"),
    ],
)
def test_nonsense_is_refused_with_what_is_allowed(name: FlagName, text: str, allowed: str) -> None:
    with pytest.raises(ValueError, match=allowed):
        normalized(name, text)


@pytest.mark.parametrize(
    ("flag", "why"),
    [
        (("NO_SUCH_FLAG", "true"), "no flag of this server"),
        ((ENABLE, "maybe"), "is none of"),
        ((ENABLE, "TRUE"), "not written as it is stored"),
        ((LOG_LEVEL, "DEBUG", ACME), "can be set for the fleet"),
        ((ROLLOUT, "10", RUN), "can be set for"),
    ],
)
def test_stored_nonsense_has_no_effect_and_says_why(flag: tuple[str, str], why: str) -> None:
    found = stored(flag)
    assert why in str(unusable(found.flags[0]))
    assert resolve(Environment(), found) == Flags(version=1, monitoring=False)


def test_a_run_needs_its_tenant() -> None:
    assert not has_scope(ENABLE, Scope("", "run-1"))


def test_what_is_in_force_says_why() -> None:
    said = Environment(enable_optimized_persistence=False, rollout_percent=5.0)
    found = in_force(
        said, stored((ENABLE, "true"), (MONITORING, "false"), (LOG_LEVEL, "no")), "INFO"
    )
    assert [(each.name, each.value, each.source) for each in found] == [
        (ENABLE, "false", FlagSource.ENVIRONMENT),
        (ROLLOUT, "5", FlagSource.ENVIRONMENT),
        (MONITORING, "false", FlagSource.STORED),
        (SHADOW, "false", FlagSource.DEFAULT),
        (LOG_LEVEL, "INFO", FlagSource.ENVIRONMENT),
    ]


def test_scopes_have_names() -> None:
    assert list(map(str, (Scope(), ACME, RUN))) == ["fleet", "tenant acme", "run acme/run-1"]


def test_every_flag_has_a_scope() -> None:
    for name, scope in itertools.product(FlagName, (Scope(),)):
        assert has_scope(name, scope)
