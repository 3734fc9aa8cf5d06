"""Whose processor time a benchmark counts as its own, and the order of a round."""

import os
import subprocess
import sys

import psutil
import pytest

from benchmarks.bench import rotated
from benchmarks.processes import CpuMeter, tree_s

BUSY = "import time\nwhile time.process_time() < 0.3: pass"
LEAST_S = 0.25
"""The system counts ticks of 10 ms, and leaves out unfinished ones."""


def test_what_a_child_took_is_ours_also_after_its_end() -> None:
    meter = CpuMeter([os.getpid()])
    subprocess.run((sys.executable, "-c", BUSY), check=True)
    assert meter.spent_s(os.getpid()) >= LEAST_S


def test_what_a_grandchild_took_is_ours_also_after_its_end() -> None:
    run = "import subprocess, sys\nsubprocess.run((sys.executable, '-c', {!r}))\n"
    middle = run.format(BUSY) + "print('done', flush=True)\ninput()"
    with subprocess.Popen(
        (sys.executable, "-c", run.format(middle)), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as root:
        assert root.stdin is not None
        assert root.stdout is not None
        assert root.stdout.readline() == b"done\n"
        assert tree_s(psutil.Process(root.pid)) >= LEAST_S
        root.stdin.write(b"\n")


def test_no_negative_time_is_foreign() -> None:
    assert CpuMeter([os.getpid()]).foreign_cores() >= 0.0


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_contender_begins_a_round_and_every_round_has_all(count: int) -> None:
    names = tuple(range(count))
    orders = [rotated(names, number) for number in range(4 * count)]
    assert all(sorted(order) == list(names) for order in orders)
    assert {order[0] for order in orders} == set(names)


def test_a_contender_does_not_always_follow_the_same_rival() -> None:
    before = {rotated(("a", "b", "c"), number)[0:2] for number in range(6)}
    assert len({second for first, second in before if first == "a"}) > 1
