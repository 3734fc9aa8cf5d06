"""Models as states: taken apart when saved and built again when loaded."""

import enum
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from typing import Annotated, Any, Literal, Optional

import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from statekeep._codec import decode_state, encode_json

# Time is nobody's concern here: these machines may be busy.
LAW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def back(value: Any, as_: Any = None) -> Any:
    return decode_state(encode_json(value), "application/json", as_ or type(value))


class Status(enum.Enum):
    OPEN = "open"
    DONE = "done"


@dataclass(frozen=True)
class Step:
    name: str
    status: Status = Status.OPEN
    cost: int = 0


class Tool(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(populate_by_name=True)

    name: str
    calls: int = pydantic.Field(default=0, alias="callCount")
    since: datetime | None = None


@dataclass
class State:
    steps: list[Step]
    by_name: dict[str, Step] = field(default_factory=dict)
    path: tuple[int, ...] = ()
    corner: tuple[int, str] = (0, "")
    current: Step | None = None
    other: Optional[Step] = None  # noqa: UP045  # both spellings are in use
    owner: uuid.UUID | None = None
    started: datetime = datetime(2031, 1, 1, tzinfo=UTC)
    day: date = date(2031, 1, 1)
    at: Annotated[time, "daily"] = time(1, 2)
    tool: Tool | None = None
    anything: Any = None
    mixed: int | str = 0
    plain: dict[str, Any] = field(default_factory=dict)


STEPS = st.builds(
    Step, st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(Status), st.integers()
)
STATES = st.builds(
    State,
    steps=st.lists(STEPS),
    by_name=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), STEPS),
    path=st.lists(st.integers()).map(tuple),
    corner=st.tuples(st.integers(), st.just("x")),
    current=st.none() | STEPS,
    other=st.none() | STEPS,
    owner=st.uuids(),
    started=st.datetimes(timezones=st.just(UTC)),
    day=st.dates(),
    at=st.times() | st.times(timezones=st.just(UTC)),
    tool=st.none() | st.builds(Tool, name=st.just("t"), calls=st.integers()),
    mixed=st.integers() | st.just("text"),
    plain=st.dictionaries(st.just("k"), st.integers()),
)


@LAW
@given(STATES)
def test_dataclasses_come_back(state: State) -> None:
    assert back(state) == state


def test_fields_that_a_dataclass_does_not_know_are_not_dropped() -> None:
    with pytest.raises(ValueError, match="Step has no field for what the state holds: added"):
        back({"name": "a", "added": 1}, Step)


def test_a_missing_field_takes_its_default_or_is_named() -> None:
    assert back({"name": "a"}, Step) == Step("a")
    with pytest.raises(TypeError, match="name"):
        back({"cost": 1}, Step)
    with pytest.raises(TypeError, match="the state is a list, not a Step"):
        back([1], Step)


@dataclass
class Derived:
    base: int
    double: int = field(init=False)

    def __post_init__(self) -> None:
        self.double = 2 * self.base


def test_derived_fields_are_derived_again() -> None:
    assert back(Derived(4)) == Derived(4)


@LAW
@given(st.builds(Tool, name=st.just("t"), calls=st.integers(), since=st.datetimes()))
def test_pydantic_models_come_back(tool: Tool) -> None:
    assert back(tool) == tool
    assert back([tool], lambda items: [Tool.model_validate(item) for item in items]) == [tool]


def test_pydantic_says_what_does_not_fit() -> None:
    with pytest.raises(pydantic.ValidationError):
        back({"callCount": 1}, Tool)


@dataclass
class Loose:
    """Annotations that say too little to restore anything by."""

    either: Step | Tool | None = None
    bare: tuple = ()  # type: ignore[type-arg]  # as people write it
    items: list = field(default_factory=list)  # type: ignore[type-arg]  # as people write it
    several: Sequence[Step] = ()
    odd: frozenset[int] = frozenset()
    owner: uuid.UUID | None = None
    more: Mapping[str, Step] = field(default_factory=dict)
    word: Literal["a", "b"] = "a"


def test_what_an_annotation_does_not_say_stays_as_decoded() -> None:
    state = {
        "either": {"name": "a"},
        "bare": [1, 2],
        "items": [3],
        "several": [{"name": "b"}],
        "odd": [4],
        "owner": 5,
        "more": {"c": {"name": "c"}},
        "word": "b",
    }
    assert vars(back(state, Loose)) == {
        **state,
        "bare": (1, 2),
        "several": [Step("b")],
        "more": {"c": Step("c")},
    }


def test_any_callable_makes_a_state() -> None:
    assert back({"a": 1}, dict) == {"a": 1}
    assert decode_state(b"12", "text/plain", int) == 12
