"""What the in-process interface takes and gives."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class AgentMetadata(BaseModel):
    """Facts about an agent's state that are not its work. Unknown fields are kept."""

    model_config = ConfigDict(extra="allow")

    created_at: datetime | None = None
    last_updated: datetime | None = None
    tags: list[str] = Field(default_factory=list)


class DeepAgentState(BaseModel):
    """The state of an agent: a few well-known fields, and every other field as it was saved.

    `model_dump(exclude_unset=True)` gives back the dictionary that was saved.
    """

    model_config = ConfigDict(extra="allow")

    user_request: str | None = None
    chat_thread_id: str | None = None
    user_id: str | None = None
    step_count: int = 0
    messages: list[Any] = Field(default_factory=list)
    metadata: AgentMetadata | None = None


class StatePersistenceRequest(BaseModel):
    """One save.

    There is no `write_behind` here, unlike in the contract of the server: what is answered here
    means committed and has the id of a snapshot, and a buffered state has neither. It would also
    be held by the process of the agent itself, whose crash is what a checkpoint is for.

    Attributes:
        state_data: A dictionary of JSON values, or a pydantic model of them.
        checkpoint_type: In any case; a type that is not known is persisted.
        execution_context: Values that are not strings are kept as JSON text.
        expires_at: Must have a time zone.
        request_id: Makes a retry the same save; one is made up when it is empty.
    """

    model_config = ConfigDict(extra="forbid")

    run_id: str
    thread_id: str | None = None
    user_id: str | None = None
    state_data: dict[str, Any] | BaseModel
    checkpoint_type: str = "manual"
    agent_phase: str | None = None
    execution_context: dict[str, Any] = Field(default_factory=dict)
    is_recovery_point: bool = False
    expires_at: datetime | None = None
    request_id: str = ""
    expected_version: int | None = None
