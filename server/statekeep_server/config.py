"""The settings of a server and their defaults, each with its reason."""

from dataclasses import dataclass, field

from statekeep_server.domain.limits import Limits

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """A connection pool."""

    pool_size: int
    max_overflow: int
    pool_timeout_s: float
    pool_recycle_s: int = 3_600


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
    """`sqlite+aiosqlite:///PATH` or `postgresql+asyncpg://…`; may hold a password: never log it."""
    host: str = "127.0.0.1"
    port: int = 50_551
    workers: int = 1
    """Processes of `statekeep serve`; more than one need PostgreSQL and Linux."""
    enable_optimized_persistence: bool | None = None
    """What this server's environment says, as with the next three; None where it says nothing."""
    optimized_persistence_rollout: float | None = None
    """Percent of the runs."""
    optimized_persistence_monitoring: bool | None = None
    optimized_persistence_shadow: bool | None = None
    ignored_fields: tuple[str, ...] = field(default=())
    """Ignored in comparisons besides the default list."""
    max_skip_age_s: float = 300.0
    max_skips: int = 1_000
    trip_fallback_percent: float = 10.0
    """Percent of the optimized path's saves that standard may have to serve before the server goes
    to standard by itself (`service/trip.py`). A path in order has none; each costs both paths, so
    that at a tenth the saves of the optimized path are no longer cheaper. 0 switches it off."""
    trip_mean_s: float = 0.25
    """Likewise the mean duration of its saves: an agent that saves twice in a step of seconds
    notices it. A save takes milliseconds."""
    trip_p99_s: float = 2.0
    """Likewise the 99th percentile: below the 3 s after which its pool gives up."""
    limits: Limits = field(default_factory=Limits)
    standard_pool: PoolSettings = STANDARD_POOL
    optimized_pool: PoolSettings = OPTIMIZED_POOL
    statement_timeout_s: float = 10.0
    lock_timeout_s: float = 5.0
    group_lock_timeout_s: float = 0.2
    """Seconds that a group of saves waits for the lock of a run, on PostgreSQL. Who holds a run for
    longer (an application's own transaction) must not stall the saves of all others: the group
    gives up, and its saves go through the standard path, each for itself."""
    default_deadline_s: float = 30.0
    """For calls that come without a deadline."""
    compression: bool = True
    """Whether the optimized path stores payloads as frames; off stores them as they came."""
    cache_max_entries: int = 4_000
    """Of the heads that choose routes. This memory and the two below are small, for the optimized
    path should take little more than standard; a server with more busy runs gains by more."""
    cache_max_bytes: int = 2 * MIB
    cache_ttl_s: float = 3_600.0
    known_heads_max_bytes: int = 2 * MIB
    """For the heads of about 2,000 busy runs, which PostgreSQL then saves in one statement."""
    payloads_max_bytes: int = 4 * MIB
    """For the newest payloads of busy runs, on which their next frames build."""
    max_concurrent_saves: int = 1_024
    """Saves under way at once; more get RESOURCE_EXHAUSTED. An eighth is kept for saves that are
    never skipped."""
    max_concurrent_bytes: int = 256 * MIB
    """Bytes of the states under way at once, likewise."""
    request_result_ttl_s: float = 86_400.0
    sweep_interval_s: float = 60.0
    sweep_batch_rows: int = 500
    drain_timeout_s: float = 20.0
    token: str | None = field(default=None, repr=False)
    tls_certificate_path: str | None = None
    tls_key_path: str | None = None
    insecure: bool = False
    """Serve plaintext, or without a token, beyond loopback: said in as many words."""
    allow_unsafe_durability: bool = False
    """Start although the database may lose acknowledged commits."""
    trust_tenant_metadata: bool = False
    """Take the tenant from the metadata key `statekeep-tenant`: plaintext loopback only."""
