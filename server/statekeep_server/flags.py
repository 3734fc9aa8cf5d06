"""The switches that may change while a server runs; each request reads them once.

A server starts with what its environment says. What is stored in the database reaches every server
of the fleet and wins over that, except over an explicit `false`: whoever switches something off in
a server's environment must be sure that it is off there.

A rollout of p percent serves the runs whose *position* lies below p. The position of a run is a
number from 0 to 9,999, a hundredth of a percent each: the first 8 bytes of the digest (`framing`)
of tenant and run under the tag `statekeep.rollout.v1`, big-endian, modulo 10,000. It never
changes, so that raising the percentage only adds runs, on all servers the same.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from statekeep_server.domain.framing import digest
from statekeep_server.domain.model import Path, RunKey

POSITIONS = 10_000
"""Hundredths of a percent: a rollout may begin with one run in ten thousand."""

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
TRUE = ("true", "1", "yes", "on")
FALSE = ("false", "0", "no", "off")


class FlagName(StrEnum):
    """The flags, by the names of their variables."""

    ENABLE_OPTIMIZED_PERSISTENCE = "ENABLE_OPTIMIZED_PERSISTENCE"
    OPTIMIZED_PERSISTENCE_ROLLOUT = "OPTIMIZED_PERSISTENCE_ROLLOUT"
    OPTIMIZED_PERSISTENCE_MONITORING = "OPTIMIZED_PERSISTENCE_MONITORING"
    OPTIMIZED_PERSISTENCE_SHADOW = "OPTIMIZED_PERSISTENCE_SHADOW"
    LOG_LEVEL = "LOG_LEVEL"


ENABLE = FlagName.ENABLE_OPTIMIZED_PERSISTENCE
ROLLOUT = FlagName.OPTIMIZED_PERSISTENCE_ROLLOUT
MONITORING = FlagName.OPTIMIZED_PERSISTENCE_MONITORING
SHADOW = FlagName.OPTIMIZED_PERSISTENCE_SHADOW
LOG_LEVEL = FlagName.LOG_LEVEL


@dataclass(frozen=True, slots=True)
class Scope:
    """For whom a flag is set: the fleet, one tenant, or one run of a tenant."""

    tenant: str = ""
    run_id: str = ""

    def __str__(self) -> str:
        """Name the scope in a log line."""
        if self.run_id:
            return f"run {self.tenant}/{self.run_id}"
        return f"tenant {self.tenant}" if self.tenant else "fleet"


FLEET = Scope()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFlag:
    """A flag as it is stored.

    Attributes:
        name: A `FlagName`, or one that only a newer server knows.
        value: As `normalized` writes it.
        version: The number of the change that set it.
        set_by: Who says to have set it.
    """

    name: str
    scope: Scope
    value: str
    version: int
    set_by: str
    set_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagChange:
    """One line of the history, which is never changed.

    Attributes:
        version: Counts the changes of a database from 1, without a gap.
        before, after: The values; None where the flag was not set.
    """

    version: int
    name: str
    scope: Scope
    before: str | None
    after: str | None
    changed_by: str
    changed_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFlags:
    """All that is stored, as one statement saw it; `version` is that of the newest change."""

    version: int
    flags: tuple[StoredFlag, ...]


NOTHING_STORED = StoredFlags(version=0, flags=())


@dataclass(frozen=True, slots=True)
class Flags:
    """One consistent reading of the switches, for one request.

    Attributes:
        enable_optimized_persistence: ENABLE_OPTIMIZED_PERSISTENCE; false is the standard path.
        rollout: Positions that the optimized path serves where it is enabled, of 10,000.
        monitoring: OPTIMIZED_PERSISTENCE_MONITORING; unless set, on where any run is optimized.
        shadow: OPTIMIZED_PERSISTENCE_SHADOW.
        log_level: LOG_LEVEL; None leaves it as the process was started.
        tenants: Positions that the optimized path serves, for tenants that have their own number.
        runs: Whether the optimized path serves, for runs that have their own answer.
        version: Of the newest change that is in here; 0 before the first.
    """

    enable_optimized_persistence: bool = False
    rollout: int = POSITIONS
    monitoring: bool = True
    shadow: bool = False
    log_level: str | None = None
    tenants: Mapping[str, int] = field(default_factory=dict)
    runs: Mapping[RunKey, bool] = field(default_factory=dict)
    version: int = 0
    fleet_positions: int = field(init=False)
    """Positions that the optimized path serves for tenants without their own number."""
    only_path: Path | None = field(init=False)
    """The path of every run; None where it depends on the run."""

    def __post_init__(self) -> None:
        positions = self.rollout if self.enable_optimized_persistence else 0
        object.__setattr__(self, "fleet_positions", positions)
        answers = {positions, *self.tenants.values()} | {
            POSITIONS if optimized else 0 for optimized in self.runs.values()
        }
        only = {frozenset({0}): Path.STANDARD, frozenset({POSITIONS}): Path.OPTIMIZED}
        object.__setattr__(self, "only_path", only.get(frozenset(answers)))

    @property
    def path(self) -> Path:
        """The path of what is about no run: optimized where it serves any."""
        return self.only_path or Path.OPTIMIZED

    def path_of(self, key: RunKey) -> Path:
        """The path of a run: its own answer, else its tenant's number, else the fleet's."""
        if self.only_path is not None:
            return self.only_path
        own = self.runs.get(key) if self.runs else None
        if own is not None:
            return Path.OPTIMIZED if own else Path.STANDARD
        positions = self.tenants.get(key.tenant, self.fleet_positions)
        if positions in {0, POSITIONS}:
            return Path.OPTIMIZED if positions else Path.STANDARD
        return Path.OPTIMIZED if position_of(key) < positions else Path.STANDARD

    def uses(self, path: Path) -> bool:
        """Whether any run may take a path."""
        return self.only_path in {None, path}


def position_of(key: RunKey) -> int:
    """Place a run on the line from 0 to 9,999 along which a rollout advances."""
    hashed = digest("statekeep.rollout.v1", [_bytes(part) for part in key])
    return int.from_bytes(hashed[:8], "big") % POSITIONS


def _bytes(text: str) -> bytes:
    # What no run may be called is refused later: a name must not fail here already.
    return text.encode("utf-8", "surrogatepass")


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What a server's environment says; None where it says nothing."""

    enable_optimized_persistence: bool | None = None
    rollout_percent: float | None = None
    monitoring: bool | None = None
    shadow: bool | None = None


def resolve(environment: Environment, stored: StoredFlags) -> Flags:
    """Make the flags of a server out of its environment and what is stored.

    What is stored and makes no sense counts as not set (see `unusable`).
    """
    usable = [flag for flag in stored.flags if unusable(flag) is None]
    fleet = {flag.name: flag.value for flag in usable if flag.scope == FLEET}
    enabled = _switch(environment.enable_optimized_persistence, fleet.get(ENABLE), default=False)
    percent = fleet.get(ROLLOUT)
    if percent is None:
        given = environment.rollout_percent
        rollout = POSITIONS if given is None else round(given * 100)
    else:
        rollout = positions(percent)
    # An explicit false wins over everything, over what is set for a tenant or a run as well.
    forced_off = environment.enable_optimized_persistence is False
    tenants = {} if forced_off else _tenants(usable, enabled=enabled)
    runs = {} if forced_off else _runs(usable)
    optimized = any((enabled and rollout, *tenants.values(), *runs.values()))
    return Flags(
        enable_optimized_persistence=enabled,
        rollout=rollout,
        monitoring=_switch(environment.monitoring, fleet.get(MONITORING), default=optimized),
        shadow=_switch(environment.shadow, fleet.get(SHADOW), default=False),
        log_level=fleet.get(LOG_LEVEL),
        tenants=MappingProxyType(tenants),
        runs=MappingProxyType(runs),
        version=stored.version,
    )


def _switch(environment: bool | None, stored: str | None, *, default: bool) -> bool:
    if environment is False:
        return False
    if stored is not None:
        return stored == "true"
    return default if environment is None else environment


def _tenants(stored: Iterable[StoredFlag], *, enabled: bool) -> dict[str, int]:
    """Count the positions of each tenant that has a switch or a percentage of its own.

    A switch without a percentage is for all runs of the tenant; a percentage without a switch
    follows that of the fleet.
    """
    own: dict[str, dict[str, str]] = {}
    for flag in stored:
        if flag.scope.tenant and not flag.scope.run_id:
            own.setdefault(flag.scope.tenant, {})[flag.name] = flag.value
    return {
        tenant: positions(values.get(ROLLOUT, "100"))
        if (values[ENABLE] == "true" if ENABLE in values else enabled)
        else 0
        for tenant, values in own.items()
    }


def _runs(stored: Iterable[StoredFlag]) -> dict[RunKey, bool]:
    return {
        RunKey(flag.scope.tenant, flag.scope.run_id): flag.value == "true"
        for flag in stored
        if flag.scope.run_id
    }


def positions(percent: str) -> int:
    """Count the positions of a percentage that `normalized` wrote."""
    return round(float(percent) * 100)


def parse_switch(text: str) -> bool:
    """Read a switch. Raises ValueError that names the allowed values."""
    word = text.strip().lower()
    if word not in (*TRUE, *FALSE):
        raise ValueError(f"{text!r} is none of {', '.join((*TRUE, *FALSE))}")
    return word in TRUE


def parse_percent(text: str) -> float:
    """Read a percentage with up to two decimals. Raises ValueError that names what is allowed."""
    word = text.strip().removesuffix("%").strip()
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,2})?", word) or float(word) > 100:
        raise ValueError(f"{text!r} is not a percentage from 0 to 100 with at most two decimals")
    return float(word)


def parse_log_level(text: str) -> str:
    """Read a log level. Raises ValueError that names the allowed values."""
    word = text.strip().upper()
    if word not in LOG_LEVELS:
        raise ValueError(f"{text!r} is none of {', '.join(LOG_LEVELS)}")
    return word


def normalized(name: FlagName, text: str) -> str:
    """Write a value as it is stored. Raises ValueError that names the allowed values."""
    if name is LOG_LEVEL:
        return parse_log_level(text)
    if name is ROLLOUT:
        return f"{parse_percent(text):g}"
    return "true" if parse_switch(text) else "false"


SCOPES: Mapping[FlagName, str] = MappingProxyType(
    {
        ENABLE: "the fleet, a tenant or a run",
        ROLLOUT: "the fleet or a tenant",
        MONITORING: "the fleet",
        SHADOW: "the fleet",
        LOG_LEVEL: "the fleet",
    }
)
"""For whom each flag can be set."""


def has_scope(name: FlagName, scope: Scope) -> bool:
    """Whether a flag can be set for a scope."""
    if scope.run_id:
        return bool(scope.tenant) and name is ENABLE
    return not scope.tenant or name in {ENABLE, ROLLOUT}


def unusable(flag: StoredFlag) -> str | None:
    """Say why a stored flag has no effect here; None when it has."""
    if flag.name not in FlagName.__members__:
        return f"no flag of this server; those are {', '.join(FlagName)}"
    name = FlagName(flag.name)
    if not has_scope(name, flag.scope):
        return f"set for {flag.scope}; it can be set for {SCOPES[name]}"
    try:
        if normalized(name, flag.value) != flag.value:
            return f"{flag.value!r} is not written as it is stored: {normalized(name, flag.value)}"
    except ValueError as error:
        return str(error)
    return None


class FlagSource(StrEnum):
    """Where the value of a flag comes from."""

    DEFAULT = "DEFAULT"
    ENVIRONMENT = "ENVIRONMENT"
    STORED = "STORED"


@dataclass(frozen=True, slots=True)
class FlagInForce:
    """What holds in a server for tenants and runs without a value of their own."""

    name: FlagName
    value: str
    source: FlagSource


def in_force(
    environment: Environment, stored: StoredFlags, started_with_log_level: str
) -> tuple[FlagInForce, ...]:
    """Say of each flag what holds in a server, and why."""
    flags = resolve(environment, stored)
    fleet = {flag.name for flag in stored.flags if flag.scope == FLEET and unusable(flag) is None}
    switches = (
        (ENABLE, environment.enable_optimized_persistence, flags.enable_optimized_persistence),
        (MONITORING, environment.monitoring, flags.monitoring),
        (SHADOW, environment.shadow, flags.shadow),
    )
    found = {
        name: FlagInForce(
            name,
            "true" if value else "false",
            _source(said, stored=name in fleet and said is not False),
        )
        for name, said, value in switches
    }
    rollout = _source(environment.rollout_percent, stored=ROLLOUT in fleet)
    found[ROLLOUT] = FlagInForce(ROLLOUT, f"{flags.rollout / 100:g}", rollout)
    level = _source(started_with_log_level, stored=LOG_LEVEL in fleet)
    found[LOG_LEVEL] = FlagInForce(LOG_LEVEL, flags.log_level or started_with_log_level, level)
    return tuple(found[name] for name in FlagName)


def _source(said: object, *, stored: bool) -> FlagSource:
    if stored:
        return FlagSource.STORED
    return FlagSource.DEFAULT if said is None else FlagSource.ENVIRONMENT
