"""Every span, event, attribute and metric of a server, in one place.

Names of calls and of the database follow OpenTelemetry's semantic conventions; ours begin with
`statekeep.`. Values of enums are written as everywhere else: PERSISTED, OPTIMIZED. Nothing here
may hold a state, a token or a connection string, and no metric has a run or a tenant as a label:
each would be a time series of its own.

`docs/telemetry.md` has these tables, written by `tools/telemetry_tables.py`.
"""

from statekeep_server.telemetry.instruments import Event, Kind, Metric, Span

# Attributes by the semantic conventions (of RPC and of databases).
RPC_SYSTEM = "rpc.system.name"
RPC_METHOD = "rpc.method"
RPC_STATUS = "rpc.response.status_code"
ERROR_TYPE = "error.type"
DB_SYSTEM = "db.system.name"
DB_OPERATION = "db.operation.name"
DB_BATCH_SIZE = "db.operation.batch.size"

# Attributes of ours, on spans.
RUN_ID = "statekeep.run.id"
PATH = "statekeep.path"
OUTCOME = "statekeep.outcome"
REASON = "statekeep.reason"
CHECKPOINT_TYPE = "statekeep.checkpoint.type"
STATE_SIZE = "statekeep.state.size"
VERSION = "statekeep.version"
CHANGED_FIELDS = "statekeep.changed_fields"
ATTEMPT = "statekeep.attempt"
SAVES = "statekeep.saves"

# Labels of our metrics.
LABEL_PATH = "path"
LABEL_OUTCOME = "outcome"
LABEL_REASON = "reason"
LABEL_GROUP = "group"
LABEL_STATE = "state"
LABEL_RESULT = "result"
LABEL_SIGNAL = "signal"
LABEL_VERSION = "version"
LABEL_WORKER = "worker"

# Spans.
DECISION = Event(
    name="statekeep.decision",
    description="The save was decided: persisted or skipped, and why.",
    attributes=(OUTCOME, REASON),
)
FALLBACK = Event(
    name="statekeep.fallback",
    description="The optimized path could not run and standard serves; the first error's reason.",
    attributes=(REASON,),
)
RETRY = Event(
    name="statekeep.retry",
    description="The save is not the first attempt: the caller's library sent it again.",
    attributes=(ATTEMPT,),
)
FAILURE = Event(
    name="statekeep.failure",
    description="What was asked was refused or failed, for this reason.",
    attributes=(REASON,),
)

CALL = Span(
    name="{rpc.method}",
    kind="SERVER",
    description="A call, from its message to its answer; its parent is the caller's span.",
    attributes=(RPC_SYSTEM, RPC_METHOD, RPC_STATUS, ERROR_TYPE),
    events=(FAILURE,),
)
SAVE = Span(
    name="statekeep.save",
    kind="INTERNAL",
    description="A save on its path, the fallback included.",
    attributes=(
        RUN_ID,
        PATH,
        CHECKPOINT_TYPE,
        STATE_SIZE,
        OUTCOME,
        REASON,
        VERSION,
        CHANGED_FIELDS,
    ),
    events=(DECISION, FALLBACK, RETRY, FAILURE),
)
SAVE_MANY = Span(
    name="statekeep.save_many",
    kind="INTERNAL",
    description="The saves of a batch.",
    attributes=(SAVES,),
    events=(FALLBACK, FAILURE),
)
LOAD = Span(
    name="statekeep.load",
    kind="INTERNAL",
    description="A load on its path.",
    attributes=(RUN_ID, PATH, STATE_SIZE, VERSION),
    events=(FALLBACK, FAILURE),
)
STORE = Span(
    name="statekeep.store",
    kind="CLIENT or INTERNAL",
    description=(
        "The store at work for a save or a load. INTERNAL where the statement or transaction is "
        "shared with others: then it is the wait for it."
    ),
    attributes=(DB_SYSTEM, DB_OPERATION, DB_BATCH_SIZE, ERROR_TYPE),
    links="the shared span that served it",
)
COMMIT = Span(
    name="statekeep.commit",
    kind="CLIENT",
    description="A group commit; a child of the first save in it that is traced.",
    attributes=(DB_SYSTEM, DB_OPERATION, DB_BATCH_SIZE, ERROR_TYPE),
    links="the store span of every traced save in it",
)
READ = Span(
    name="statekeep.read",
    kind="CLIENT",
    description="A statement that probes or loads share; a child of the first that is traced.",
    attributes=(DB_SYSTEM, DB_OPERATION, DB_BATCH_SIZE, ERROR_TYPE),
    links="the store span of every traced save or load in it",
)
SPANS = (CALL, SAVE, SAVE_MANY, LOAD, STORE, COMMIT, READ)

# Metrics.
DURATION_BOUNDS = (
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0
)  # fmt: skip
"""In seconds. The conventions begin at 5 ms, which is longer than most saves take here."""
SIZE_BOUNDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Of a group, which has 64 items at most."""


def _counter(name: str, unit: str, description: str, *labels: str) -> Metric:
    return Metric(name=name, kind=Kind.COUNTER, unit=unit, description=description, labels=labels)


def _gauge(name: str, unit: str, description: str, *labels: str) -> Metric:
    return Metric(name=name, kind=Kind.GAUGE, unit=unit, description=description, labels=labels)


def _durations(name: str, description: str, *labels: str) -> Metric:
    return Metric(
        name=name,
        kind=Kind.HISTOGRAM,
        unit="s",
        description=description,
        labels=labels,
        bounds=DURATION_BOUNDS,
    )


CALL_DURATION = _durations(
    "rpc.server.call.duration",
    "Duration of calls, by method and status; error.type is the status where the server is at "
    "fault, empty otherwise. A stream is one call.",
    RPC_SYSTEM, RPC_METHOD, RPC_STATUS, ERROR_TYPE,
)  # fmt: skip
DB_DURATION = _durations(
    "db.client.operation.duration",
    "Duration of what the store does for its callers, transactions and retries included; one for "
    "a whole group.",
    DB_SYSTEM, DB_OPERATION, LABEL_PATH, ERROR_TYPE,
)  # fmt: skip

SAVES_TOTAL = _counter(
    "statekeep.saves",
    "{save}",
    "Acknowledged saves. The skip rate is the share of SKIPPED.",
    LABEL_OUTCOME, LABEL_PATH,
)  # fmt: skip
SAVE_DURATION = _durations(
    "statekeep.save.duration",
    "Duration of acknowledged saves on the path that served them.",
    LABEL_OUTCOME, LABEL_PATH,
)  # fmt: skip
DECISIONS = _counter(
    "statekeep.decisions",
    "{save}",
    "Acknowledged saves by the reason of their decision.",
    LABEL_REASON, LABEL_PATH,
)  # fmt: skip
REFUSALS = _counter(
    "statekeep.refusals",
    "{save}",
    "Saves that were refused: a bad field, a conflict, overload, a deadline. No fallback helps.",
    LABEL_REASON, LABEL_PATH,
)  # fmt: skip
FAILURES = _counter(
    "statekeep.failures",
    "{save}",
    "Saves that a path failed for good, after a fallback where there is one.",
    LABEL_REASON, LABEL_PATH,
)  # fmt: skip
FALLBACKS = _counter(
    "statekeep.fallbacks",
    "{save}",
    "Saves and loads that left the optimized path for standard, by the reason of the first error.",
    LABEL_REASON,
)
COMMITS_UNKNOWN = _counter(
    "statekeep.commits.unknown",
    "{save}",
    "Saves whose commit was sent and not answered: the database knows what became of them.",
    LABEL_PATH,
)
LOADS = _counter("statekeep.loads", "{load}", "Answered loads.", LABEL_PATH)
ROWS_WRITTEN = _counter(
    "statekeep.rows.written",
    "{row}",
    "Rows inserted, updated or deleted by committed transactions.",
    LABEL_PATH,
)
STATEMENTS = _counter(
    "statekeep.statements",
    "{statement}",
    "Statements sent to the database, those that begin and end transactions included.",
    LABEL_PATH,
)
SAVES_UNDER_WAY = _gauge(
    "statekeep.saves.under_way", "{save}", "Saves that were let in and are not answered yet."
)

GROUP_SIZE = Metric(
    name="statekeep.group.size",
    kind=Kind.HISTOGRAM,
    unit="{item}",
    description="Items that shared a transaction or statement: saves, probes or loads.",
    labels=(LABEL_GROUP,),
    bounds=SIZE_BOUNDS,
)
GROUP_RETRIES = _counter(
    "statekeep.group.retries",
    "{item}",
    "Items that were tried alone after their batch failed.",
    LABEL_GROUP,
)
QUEUE_DEPTH = _gauge(
    "statekeep.queue.depth", "{item}", "Items that wait for the next group.", LABEL_GROUP
)
QUEUE_SIZE = _gauge("statekeep.queue.size", "By", "Bytes of what waits.", LABEL_GROUP)
QUEUE_AGE = _gauge(
    "statekeep.queue.age", "s", "Age of the item that waits longest; 0 where none does.",
    LABEL_GROUP,
)  # fmt: skip

POOL_CONNECTIONS = _gauge(
    "statekeep.pool.connections",
    "{connection}",
    "Connections of a pool: in use (used), open and free (idle), and how many it may open (limit). "
    "SQLite has none.",
    LABEL_STATE, LABEL_PATH,
)  # fmt: skip
CACHE_LOOKUPS = _counter(
    "statekeep.cache.lookups", "{lookup}", "Look-ups in the head cache: hit or miss.", LABEL_RESULT
)
CACHE_ENTRIES = _gauge("statekeep.cache.entries", "{entry}", "Heads in the cache.")
CACHE_SIZE = _gauge("statekeep.cache.size", "By", "Bytes of the heads in the cache.")
CACHE_EVICTIONS = _counter(
    "statekeep.cache.evictions", "{entry}", "Heads that made room for others."
)
CACHE_INVALIDATIONS = _counter(
    "statekeep.cache.invalidations", "{entry}", "Heads that were forgotten before a write."
)
ROUTES = _counter(
    "statekeep.routes",
    "{save}",
    "Routes that the head cache chose: right where the decision agreed, or wrong.",
    LABEL_RESULT,
)

CIRCUIT_OPEN = _gauge(
    "statekeep.circuit.open",
    "{flag}",
    "1 while the breaker keeps saves off the optimized path.",
)
TRIPPED = _gauge(
    "statekeep.tripped",
    "{flag}",
    "1 after the server went to standard by itself, until `statekeep rollout reset`.",
)
OPTIMIZED = _gauge(
    "statekeep.optimized", "{flag}", "1 where ENABLE_OPTIMIZED_PERSISTENCE holds for the fleet."
)
ROLLOUT = _gauge(
    "statekeep.rollout", "1", "Share of the runs that the optimized path serves, of 1."
)
SHADOW = _gauge("statekeep.shadow", "{flag}", "1 while OPTIMIZED_PERSISTENCE_SHADOW holds.")
MONITORING = _gauge(
    "statekeep.monitoring", "{flag}", "1 while OPTIMIZED_PERSISTENCE_MONITORING holds."
)
SHADOW_DECISIONS = _counter(
    "statekeep.shadow.decisions",
    "{save}",
    "What the optimized path would have made of saves that standard persisted.",
    LABEL_OUTCOME,
)
SHADOW_DISAGREEMENTS = _counter(
    "statekeep.shadow.disagreements",
    "{save}",
    "Saves that would have been skipped although their fields had changed.",
)

MONITORING_DEPTH = _gauge(
    "statekeep.monitoring.depth", "{event}", "Events that wait for the monitoring's writer."
)
MONITORING_DROPPED = _counter(
    "statekeep.monitoring.dropped", "{event}", "Events that a full monitoring queue dropped."
)
LOGS_DROPPED = _counter(
    "statekeep.logs.dropped", "{line}", "Log lines that could not be written in time."
)
TELEMETRY_DROPPED = _counter(
    "statekeep.telemetry.dropped",
    "{item}",
    "Spans, or exports of metrics, that the collector did not take: dead, slow or refusing.",
    LABEL_SIGNAL,
)

WRITE_BEHIND_DEPTH = _gauge(
    "statekeep.write_behind.depth", "{save}", "Buffered saves that are not written yet."
)
WRITE_BEHIND_SIZE = _gauge("statekeep.write_behind.size", "By", "Bytes of the buffered saves.")
WRITE_BEHIND_AGE = _gauge(
    "statekeep.write_behind.age", "s", "Age of the oldest buffered save; 0 where there is none."
)
WRITE_BEHIND_SAVES = _counter(
    "statekeep.write_behind.saves",
    "{save}",
    "What became of buffered saves: persisted, skipped, coalesced, superseded or lost.",
    LABEL_RESULT,
)

INFO = _gauge("statekeep.info", "{flag}", "Always 1: what runs.", LABEL_VERSION, LABEL_WORKER)
UPTIME = _gauge("process.uptime", "s", "Time since the server started.")
CPU_TIME = _counter("process.cpu.time", "s", "Processor time of the process.")
MEMORY = _gauge("process.memory.usage", "By", "Resident memory of the process; Linux alone.")

METRICS = (
    CALL_DURATION, DB_DURATION,
    SAVES_TOTAL, SAVE_DURATION, DECISIONS, REFUSALS, FAILURES, FALLBACKS, COMMITS_UNKNOWN, LOADS,
    ROWS_WRITTEN, STATEMENTS, SAVES_UNDER_WAY,
    GROUP_SIZE, GROUP_RETRIES, QUEUE_DEPTH, QUEUE_SIZE, QUEUE_AGE,
    POOL_CONNECTIONS, CACHE_LOOKUPS, CACHE_ENTRIES, CACHE_SIZE, CACHE_EVICTIONS,
    CACHE_INVALIDATIONS, ROUTES,
    CIRCUIT_OPEN, TRIPPED, OPTIMIZED, ROLLOUT, SHADOW, MONITORING, SHADOW_DECISIONS,
    SHADOW_DISAGREEMENTS,
    MONITORING_DEPTH, MONITORING_DROPPED, LOGS_DROPPED, TELEMETRY_DROPPED,
    WRITE_BEHIND_DEPTH, WRITE_BEHIND_SIZE, WRITE_BEHIND_AGE, WRITE_BEHIND_SAVES,
    INFO, UPTIME, CPU_TIME, MEMORY,
)  # fmt: skip
