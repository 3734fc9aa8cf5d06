"""The demo agent: plans a van's day in many small steps, without a model and without a network.

It works as agents do: a conversation of system, user, assistant and tool messages, in which every
step adds one. What it knows and what it is about to try is in its memory. Everything it will ever
do follows from its state, so an agent that is resumed from a saved state goes on exactly where
that state was.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any, Self, TypedDict, cast

from statekeep_server.bench import dialogue, tools, tours
from statekeep_server.bench.city import DEPOT, Day, day_after, first_day, hear_news

FEWEST_STEPS = 8
CALLS_A_TURN = 3
FRONTIER = 9
"""Variations that are driven before the agent believes that its tour is good."""

Message = dict[str, Any]


class Memory(TypedDict):
    """What the agent knows beside the conversation. JSON through and through."""

    seed: int
    """Makes the city and the news."""
    steps: int
    """How many messages the run has in the end."""
    events: int
    """How much news came in."""
    phase: str
    """One of read, measure, build, improve, hear, done."""
    pending: list[dict[str, Any]]
    """Tool calls that wait for their answers."""
    to_read: list[str]
    """Parcels to be looked up."""
    parcels: dict[str, dict[str, Any]]
    """What was looked up, by parcel."""
    legs_s: dict[str, dict[str, int]]
    """Measured seconds, from stop to stop."""
    tour: list[str]
    """The best tour that was driven since the last news."""
    cost: int | None
    """Its cost; None before one was driven."""
    frontier: list[list[str]]
    """Tours to be driven, the most promising first."""


class Agent:
    """Plans one day. `start` a new one or `resume` one from its state."""

    def __init__(self, messages: list[Message], memory: Memory, day: Day) -> None:
        self._messages = messages
        self._memory = memory
        self._day = day

    @classmethod
    def start(cls, *, seed: int, steps: int) -> Self:
        """Begin a day that will have `steps` messages, at least `FEWEST_STEPS`."""
        if steps < FEWEST_STEPS:
            raise ValueError(f"a day has at least {FEWEST_STEPS} steps, not {steps}")
        day = first_day(seed)
        memory = Memory(
            seed=seed,
            steps=steps,
            events=0,
            phase="read",
            pending=[],
            to_read=sorted(day.parcels),
            parcels={},
            legs_s={},
            tour=[],
            cost=None,
            frontier=[],
        )
        return cls([], memory, day)

    @classmethod
    def resume(cls, state: Mapping[str, Any]) -> Self:
        """Go on from a state that `state` gave."""
        memory = cast("Memory", copy.deepcopy(state["memory"]))
        return cls(list(state["messages"]), memory, day_after(memory["seed"], memory["events"]))

    def state(self) -> dict[str, Any]:
        """Everything there is to the agent, as a JSON object that later steps do not change."""
        return {
            "messages": list(self._messages),
            "step_count": len(self._messages),
            "status": "completed" if self.done else "running",
            "memory": copy.deepcopy(self._memory),
        }

    @property
    def messages(self) -> Sequence[Message]:
        """The conversation so far."""
        return self._messages

    @property
    def done(self) -> bool:
        """Whether the final answer has been given."""
        return self._memory["phase"] == "done"

    @property
    def answer(self) -> str:
        """The final answer."""
        if not self.done:
            raise ValueError("the agent has not finished")
        return str(self._messages[-1]["content"])

    @property
    def reward(self) -> float:
        """1.0 if the plan that stands at the end delivers everything in time, else 0.0."""
        drive = tools.drive_tour(self._day, {"tour": self._memory["tour"]})
        return 0.0 if drive["late_s"] else 1.0

    def next_role(self) -> str:
        """The role of the message that the next step adds."""
        if not self._messages:
            return "system"
        if len(self._messages) == 1 or self._memory["phase"] == "hear":
            return "user"
        return "tool" if self._memory["pending"] else "assistant"

    def step(self) -> Message:
        """Take the next step; return the message that it added."""
        if self.done:
            raise ValueError("the agent has finished")
        role = self.next_role()
        if role == "system":
            message: Message = {"role": "system", "content": dialogue.POLICY}
        elif role == "user":
            message = {"role": "user", "content": self._listen()}
        elif role == "tool":
            message = self._use_tool()
        else:
            message = self._think()
        self._messages.append(message)
        return message

    def _listen(self) -> str:
        """What the dispatcher says: the task, or news."""
        if len(self._messages) == 1:
            return dialogue.greeting(sorted(self._day.parcels))
        news = hear_news(self._day)
        self._day = news.day
        memory = self._memory
        memory["events"] = news.day.events
        memory["phase"] = "read"
        memory["to_read"] = [news.parcel_id] if news.parcel_id else []
        memory["cost"] = None
        memory["frontier"] = []
        return dialogue.news(news.told)

    def _use_tool(self) -> Message:
        """Answer the oldest call that waits, and remember what it taught."""
        call = self._memory["pending"].pop(0)
        name, arguments = call["name"], call["arguments"]
        result = tools.TOOLS[name](self._day, arguments)
        self._learn(name, arguments, result)
        content = json.dumps(result)
        return {"role": "tool", "tool_call_id": call["id"], "name": name, "content": content}

    def _learn(self, name: str, arguments: Mapping[str, Any], result: tools.Result) -> None:
        memory = self._memory
        if name == "look_up_parcel":
            memory["parcels"][arguments["parcel_id"]] = result
        elif name == "measure_legs":
            memory["legs_s"][arguments["stop"]] = result["legs_s"]
            for stop, legs_s in memory["legs_s"].items():  # streets take the same time both ways
                legs_s[arguments["stop"]] = result["legs_s"].get(stop, 0)
        elif memory["cost"] is None or result["cost"] < memory["cost"]:
            memory["tour"], memory["cost"] = list(arguments["tour"]), result["cost"]
            if memory["phase"] == "improve":
                memory["frontier"] = self._variations()

    def _think(self) -> Message:
        """What the assistant says and which tools it calls, given the messages that are left."""
        left = self._memory["steps"] - len(self._messages)
        if left == 1:
            self._memory["tour"] = list(self._best_guess())
            text = self._report()
            self._memory["phase"] = "done"
            return {"role": "assistant", "content": text}
        if left == 2:  # no room for a call and its answer
            return {"role": "assistant", "content": dialogue.CLOSING}
        return self._work(min(CALLS_A_TURN, left - 2))

    def _work(self, calls: int) -> Message:
        """Go through the phases up to one that has something to do with at most `calls` calls."""
        memory = self._memory
        if memory["phase"] == "read":
            if memory["to_read"]:
                names, memory["to_read"] = memory["to_read"][:calls], memory["to_read"][calls:]
                arguments = [{"parcel_id": name} for name in names]
                return self._call("look_up_parcel", arguments, dialogue.looking_up(names))
            memory["phase"] = "measure"
        if memory["phase"] == "measure":
            missing = [stop for stop in self._stops() if stop not in memory["legs_s"]]
            if missing:
                names = missing[:calls]
                arguments = [{"stop": name} for name in names]
                text = dialogue.measuring(names, len(missing) - len(names))
                return self._call("measure_legs", arguments, text)
            memory["phase"] = "build"
            memory["frontier"] = [list(tour) for tour in self._first_tours()]
        if memory["phase"] == "build":
            if memory["frontier"]:
                return self._drive(calls, dialogue.building())
            memory["phase"] = "improve"
            memory["frontier"] = self._variations()
        if memory["phase"] == "improve" and memory["frontier"]:
            guesses = [self._guess(tour) for tour in memory["frontier"][:calls]]
            return self._drive(calls, dialogue.improving(memory["cost"] or 0, guesses))
        text = self._report()
        memory["phase"] = "hear"
        return {"role": "assistant", "content": text}

    def _call(self, name: str, arguments: Sequence[Mapping[str, Any]], text: str) -> Message:
        """Ask for one tool with several arguments, in the words of tool-calling models."""
        number = len(self._messages)
        calls = [
            {"id": f"call_{number}_{i}", "name": name, "arguments": dict(each)}
            for i, each in enumerate(arguments)
        ]
        self._memory["pending"] = calls
        return {
            "role": "assistant",
            "content": text,
            "tool_calls": [
                {
                    "id": call["id"],
                    "type": "function",
                    "function": {"name": name, "arguments": json.dumps(call["arguments"])},
                }
                for call in calls
            ],
        }

    def _drive(self, calls: int, text: str) -> Message:
        """Drive the most promising tours of the frontier."""
        frontier = self._memory["frontier"]
        chosen, self._memory["frontier"] = frontier[:calls], frontier[calls:]
        return self._call("drive_tour", [{"tour": tour} for tour in chosen], text)

    def _report(self) -> str:
        drive = tools.drive_tour(self._day, {"tour": self._memory["tour"]})
        return dialogue.report(self._memory["tour"], drive)

    def _stops(self) -> list[str]:
        return [DEPOT, *sorted(self._day.parcels)]

    def _guess(self, tour: Sequence[str]) -> int:
        return tools.estimate(tour, self._memory["legs_s"], self._memory["parcels"])

    def _variations(self) -> list[list[str]]:
        promising = tours.most_promising(self._memory["tour"], self._guess, FRONTIER)
        return [list(tour) for tour in promising]

    def _first_tours(self) -> list[tours.Tour]:
        """Tours made in different ways; after news also the old one, mended."""
        names, memory = sorted(self._day.parcels), self._memory
        due_s = {name: memory["parcels"][name]["due_s"] for name in names}
        made = [
            tours.by_insertion(names, self._guess, self._remaining_tour()),
            tours.by_nearest(names, memory["legs_s"]),
            tours.by_due(names, due_s),
            tours.by_insertion(names, self._guess),
        ]
        return list(dict.fromkeys(made))

    def _best_guess(self) -> tours.Tour:
        """A tour of all parcels without further work: the last one, with the missing at its end."""
        kept = self._remaining_tour()
        return (*kept, *sorted(set(self._day.parcels) - set(kept)))

    def _remaining_tour(self) -> tours.Tour:
        """The last tour without the parcels that were cancelled."""
        return tuple(name for name in self._memory["tour"] if name in self._day.parcels)
