"""The settings of a server and their defaults, each with its reason.

What stands below a field is its text in `docs/configuration.md`, which `make configuration` writes:
it speaks to who operates a server. The unit is the end of the name.
"""

from dataclasses import dataclass, field

from statekeep_server.domain.limits import Limits

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """A connection pool."""

    pool_size: int
    """Connections that stay open once they were needed."""
    max_overflow: int
    """Connections that are opened beyond those under load, and closed again."""
    pool_timeout_s: float
    """How long a save waits for a free connection."""
    pool_recycle_s: int = 3_600
    """A connection that is older is replaced before it is used again: what balances, forwards or
    restarts between server and database forgets old ones."""


STANDARD_POOL = PoolSettings(pool_size=10, max_overflow=15, pool_timeout_s=5.0)
OPTIMIZED_POOL = PoolSettings(pool_size=15, max_overflow=25, pool_timeout_s=3.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One of the processes of a server.

    Attributes:
        index: Its number, from 0; a worker that is started again keeps it.
        count: How many there are.
        folder: Theirs alone: each has a socket in it, on which it tells what it counted.
    """

    index: int
    count: int
    folder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that a server is started with."""

    database_url: str
    """Where states are kept: `sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST/DATABASE`. It may
    hold a password, and is never logged."""
    host: str = "127.0.0.1"
    """The address to listen on. One beyond loopback needs TLS and a token."""
    port: int = 50_551
    """The port; 0 lets the system choose."""
    workers: int = 1
    """Processes that serve the one port; more than one need PostgreSQL and Linux."""
    enable_optimized_persistence: bool | None = None
    """Whether the optimized path serves. `false` always wins in this server; otherwise what is set
    at run time wins."""
    optimized_persistence_rollout: float | None = None
    """Percent of the runs that the optimized path serves where it is enabled."""
    optimized_persistence_monitoring: bool | None = None
    """Whether the log has a line for each save, where the optimized path serves any. `false` always
    wins in this server."""
    optimized_persistence_shadow: bool | None = None
    """Whether the optimized decision is computed and counted while standard answers. `false` always
    wins in this server."""
    ignored_fields: tuple[str, ...] = field(default=())
    """Fields that no comparison looks at, besides the default list: names of the top level of a
    state, or JSON Pointers. The same on all servers of a database."""
    max_skip_age_s: float = 300.0
    """After so long an unchanged state is persisted again, by the clock of the database and across
    all servers: a resume never starts from older ignored fields."""
    max_skips: int = 1_000
    """After so many skips of a run in a row an unchanged state is persisted again, counted by each
    process."""
    trip_fallback_percent: float = 10.0
    """Percent of the optimized path's saves that standard may have to serve before the server goes
    to standard by itself. A path in order has none; each costs both paths, so that at a tenth the
    saves of the optimized path are no longer cheaper. 0 switches it off."""
    trip_mean_s: float = 0.25
    """The mean duration of the optimized path's saves from which the server goes to standard by
    itself: an agent that saves twice in a step of seconds notices it. A save takes milliseconds. 0
    switches it off."""
    trip_p99_s: float = 2.0
    """The 99th percentile, likewise: below the 3 s after which its pool gives up. 0 switches it
    off."""
    limits: Limits = field(default_factory=Limits)
    standard_pool: PoolSettings = STANDARD_POOL
    optimized_pool: PoolSettings = OPTIMIZED_POOL
    statement_timeout_s: float = 10.0
    """How long a statement may take."""
    lock_timeout_s: float = 5.0
    """How long a transaction waits for a lock."""
    group_lock_timeout_s: float = 0.2
    """How long a group of saves waits for the lock of a run, on PostgreSQL. Who holds a run for
    longer (an application's own transaction) must not stall the saves of all others: the group
    gives up, and its saves go through the standard path, each for itself."""
    default_deadline_s: float = 30.0
    """The deadline of calls that come without one."""
    compression: bool = True
    """Whether the optimized path stores states as frames that build on one another; `off` stores
    them as they came."""
    cache_max_entries: int = 8_000
    """Heads in the cache that chooses routes: mostly of runs that are saved again and again. Those
    that are saved once take an eighth of this memory, and of that for known heads, at most."""
    cache_max_bytes: int = 8 * MIB
    """The memory of those heads, estimated."""
    cache_ttl_s: float = 3_600.0
    """After so long a head in the cache is forgotten."""
    known_heads_max_bytes: int = 8 * MIB
    """The memory, estimated, for the heads of about 8,000 busy runs, which PostgreSQL then saves in
    one statement."""
    payloads_max_bytes: int = 64 * MIB
    """The memory for the newest payloads of busy runs, on which their next frames build: a run of
    10 kB states takes 21 kB. Runs that are saved once or seldom take none. 0 stores states as they
    came."""
    max_concurrent_saves: int = 1_024
    """Saves under way at once; more get RESOURCE_EXHAUSTED. An eighth is kept for saves that are
    never skipped."""
    max_concurrent_bytes: int = 256 * MIB
    """Bytes of the states under way at once, likewise."""
    write_behind_max_age_s: float = 1.0
    """Seconds after which a state that is held for write-behind is being written: what a crash can
    lose. An agent whose steps take less saves several of them with one write."""
    write_behind_max_runs: int = 1_000
    """Runs of which write-behind holds a state, one each; beyond that, saves are durable. 0 holds
    none."""
    write_behind_max_bytes: int = 16 * MIB
    """Bytes of the states that write-behind holds; beyond that, saves are durable."""
    write_behind_give_up_s: float = 300.0
    """Seconds after which a state that cannot be written is given up: its agent has long gone on,
    and another server may serve it by then."""
    request_result_ttl_s: float = 86_400.0
    """For so long a retry gets the first answer again."""
    sweep_interval_s: float = 60.0
    """The time between two rounds of deleting expired rows."""
    sweep_batch_rows: int = 500
    """How many rows one transaction of such a round deletes."""
    drain_timeout_s: float = 20.0
    """How long calls under way may take when the server stops."""
    metrics_port: int | None = None
    """Of the page for Prometheus, which a worker serves on this port plus its number; None asks
    the OTEL_* variables alone."""
    token: str | None = field(default=None, repr=False)
    """What callers must send as `authorization: Bearer …`; the commands and the clients send it
    where it is set. It is never logged."""
    tls_certificate_path: str | None = None
    """The certificate of the server, a PEM file."""
    tls_key_path: str | None = None
    """The key of the certificate, a PEM file."""
    insecure: bool = False
    """Serve other machines without TLS or without a token: said in as many words."""
    allow_unsafe_durability: bool = False
    """Start although the database may lose acknowledged commits."""
    trust_tenant_metadata: bool = False
    """For development: take the tenant from the metadata key `statekeep-tenant`. Plaintext on
    loopback only."""
