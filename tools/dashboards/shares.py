"""The figures by which the optimized path is judged, as queries; `service/kpis.py` has the same."""

SAVES = "sum(rate(statekeep_saves_total{$servers}[$rate]))"
SKIPPED = '(sum(rate(statekeep_saves_total{$servers, outcome="SKIPPED"}[$rate])) or vector(0))'
OPTIMIZED = '(sum(rate(statekeep_saves_total{$servers, path="OPTIMIZED"}[$rate])) or vector(0))'
FALLBACKS = "(sum(rate(statekeep_fallbacks_total{$servers}[$rate])) or vector(0))"
HITS = '(sum(rate(statekeep_cache_lookups_total{$servers, result="hit"}[$rate])) or vector(0))'
LOOKUPS = "sum(rate(statekeep_cache_lookups_total{$servers}[$rate]))"

# A share of nothing has no value: better a gap in a line than a share that is not a number.
SKIP_RATE = f"{SKIPPED} / ({SAVES} > 0)"
FALLBACK_RATE = f"{FALLBACKS} / ({OPTIMIZED} + {FALLBACKS} > 0)"
CACHE_HITS = f"{HITS} / ({LOOKUPS} > 0)"

ROWS_PER_SAVE = 4
"""Snapshot, audit record, request result, and the head that moves."""
WRITES_AVOIDED = f"{SKIPPED} * {ROWS_PER_SAVE}"

_USED = 'sum by (job, instance, path) (statekeep_pool_connections{$servers, state="used"})'
_LIMIT = 'sum by (job, instance, path) (statekeep_pool_connections{$servers, state="limit"})'
POOL_USE = f"max by (path) ({_USED} / {_LIMIT})"
