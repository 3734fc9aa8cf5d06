"""The metadata of a call: who calls, and which trace the call belongs to."""

import importlib
from collections.abc import Callable

from statekeep._config import ClientConfig

Inject = Callable[[dict[str, str]], None]


def find_inject() -> Inject | None:
    """Find OpenTelemetry's way to write the current trace context, if it is installed.

    With it, a `traceparent` goes out with every call that is made inside a span; without it, or
    outside of any span, nothing does.
    """
    try:
        inject: Inject = importlib.import_module("opentelemetry.propagate").inject
    except ModuleNotFoundError:
        return None  # other packages of that name may be there without it
    return inject


def call_metadata(config: ClientConfig, inject: Inject | None) -> tuple[tuple[str, str], ...]:
    """Make the metadata of one call. The caller's hook comes last and may add anything."""
    pairs: list[tuple[str, str]] = []
    if config.token:
        pairs.append(("authorization", f"Bearer {config.token}"))
    if config.tenant:
        pairs.append(("statekeep-tenant", config.tenant))
    if inject is not None:
        carrier: dict[str, str] = {}
        inject(carrier)
        pairs += [(key.lower(), value) for key, value in carrier.items()]
    if config.metadata is not None:
        pairs += config.metadata()
    return tuple(pairs)
