"""The golden vectors: the form, the hash and the refusals that every language must reproduce."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from statekeep_server.domain.canonical import (
    CANONICAL_VERSION,
    canonicalize_exactly,
    canonicalize_fast,
    compile_ignored,
)
from statekeep_server.domain.errors import InvalidField
from statekeep_server.domain.limits import Limits
from statekeep_server.domain.model import make_context
from statekeep_server.domain.prepare import is_json, normalize_content_type
from tests.support import canonical_oracle as oracle
from tests.support.saves import prepared

FILE = json.loads((Path(__file__).parents[2] / "vectors" / "canonical.json").read_text("utf-8"))
VECTORS: list[dict[str, Any]] = FILE["vectors"]
GOOD = [vector for vector in VECTORS if "reason" not in vector]
BAD = [vector for vector in VECTORS if "reason" in vector]


def named(vector: dict[str, Any]) -> str:
    return str(vector["name"])


def raw_state(vector: dict[str, Any]) -> bytes:
    if "state" in vector:
        return str(vector["state"]).encode()
    return base64.b64decode(vector["state_base64"])


def test_the_vectors_are_of_this_version() -> None:
    assert FILE["canonical_version"] == CANONICAL_VERSION
    assert len({named(vector) for vector in VECTORS}) == len(VECTORS)


@pytest.mark.parametrize("vector", GOOD, ids=named)
def test_a_state_is_compared_by_this_hash(vector: dict[str, Any]) -> None:
    options = {
        name: vector[name] for name in ("thread_id", "user_id", "agent_phase") if name in vector
    }
    save = prepared(
        raw_state(vector),
        ignored=compile_ignored(vector.get("ignored_fields", ())),
        content_type=vector.get("content_type", ""),
        execution_context=make_context(vector.get("execution_context", {})),
        **options,
    )
    assert save.comparison_hash.hex() == vector["comparison_hash"]


@pytest.mark.parametrize("vector", [v for v in GOOD if "canonical" in v], ids=named)
def test_a_state_has_this_form_by_either_reader(vector: dict[str, Any]) -> None:
    ignored = compile_ignored(vector.get("ignored_fields", ()))
    exact = canonicalize_exactly(raw_state(vector), ignored, Limits())
    assert exact.data == vector["canonical"].encode()
    assert canonicalize_fast(raw_state(vector), ignored, Limits()) in {None, exact}


@pytest.mark.parametrize("vector", GOOD, ids=named)
def test_the_second_implementation_agrees(vector: dict[str, Any]) -> None:
    names = tuple(vector.get("ignored_fields", ()))
    content_type = normalize_content_type(vector.get("content_type", "application/json"))
    form = raw_state(vector)
    if is_json(content_type):
        form = oracle.write(oracle.strip(json.loads(form), names)).encode()
        assert form == vector["canonical"].encode()
    made = oracle.comparison_hash(
        form,
        ignored=names,
        content_type=content_type,
        thread_id=vector.get("thread_id", ""),
        user_id=vector.get("user_id", ""),
        agent_phase=vector.get("agent_phase", ""),
        execution_context=vector.get("execution_context"),
    )
    assert made.hex() == vector["comparison_hash"]


@pytest.mark.parametrize("vector", BAD, ids=named)
def test_a_state_is_refused_for_this_reason(vector: dict[str, Any]) -> None:
    with pytest.raises(InvalidField) as refused:
        prepared(raw_state(vector))
    assert refused.value.reason == vector["reason"]
    assert refused.value.metadata.get("problem") == vector.get("problem")
    assert refused.value.metadata["field"] == "state.data"


def test_only_equal_states_share_a_hash() -> None:
    names: dict[str, set[str]] = {}
    for vector in GOOD:
        names.setdefault(vector["comparison_hash"], set()).add(named(vector))
    assert [group for group in names.values() if len(group) > 1] == [
        {"absent", "a content type in other words"},
        {"default list, top level only", "the same without the ignored fields"},
    ]
