"""The way to a collector: nothing put waits, what is not taken is counted, the end is bounded."""

import asyncio
import threading
from collections.abc import Callable, Sequence

from statekeep_server.telemetry.shipping import Shipping


def shipping(
    send: Callable[[Sequence[int]], bool], cancel: Callable[[], None] = lambda: None
) -> Shipping[int]:
    return Shipping("test", send, cancel, max_items=4, batch_items=2, delay_s=0.01)


async def test_all_that_was_put_is_sent_in_order() -> None:
    sent: list[int] = []

    def send(batch: Sequence[int]) -> bool:
        sent.extend(batch)
        return True

    line = shipping(send)
    for item in range(3):
        line.put(item)
    await line.close(10)
    assert sent == [0, 1, 2]
    assert line.dropped == 0


async def test_a_sender_that_hangs_costs_items_and_the_bound() -> None:
    hangs, sending = threading.Event(), threading.Event()

    def send(batch: Sequence[int]) -> bool:
        sending.set()
        hangs.wait(30)
        return False

    line = shipping(send, hangs.set)
    line.put(0)
    line.put(1)
    await asyncio.to_thread(sending.wait, 30)
    for item in range(2, 8):
        line.put(item)
    assert line.dropped == 2
    await line.close(0.01)
    assert line.dropped == 8


async def test_what_is_refused_or_breaks_is_dropped_and_the_next_is_tried() -> None:
    answers: list[bool | Exception] = [ValueError(), False, True]

    def send(batch: Sequence[int]) -> bool:
        answer = answers.pop(0)
        if isinstance(answer, bool):
            return answer
        raise answer

    line = Shipping("test", send, lambda: None, max_items=4, batch_items=1, delay_s=0.01)
    for item in range(3):
        line.put(item)
    await line.close(10)
    assert line.dropped == 2
    line.put(9)
    assert line.dropped == 3
