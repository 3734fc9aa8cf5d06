"""The in-process Python interface: the same two paths without gRPC."""

from statekeep_server.inprocess.models import (
    AgentMetadata,
    DeepAgentState,
    StatePersistenceRequest,
)
from statekeep_server.inprocess.service import (
    StatePersistenceService,
    open_state_persistence,
)

__all__ = [
    "AgentMetadata",
    "DeepAgentState",
    "StatePersistenceRequest",
    "StatePersistenceService",
    "open_state_persistence",
]
