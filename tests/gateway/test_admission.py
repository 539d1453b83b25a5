"""Admission: as many as there are places, in order of arrival, and nobody waits for nothing."""

from __future__ import annotations

import asyncio
import time

import pytest

from pilotfish.errors import ConfigError
from pilotfish.gateway.admission import Admission
from pilotfish.gateway.refusals import Refusal
from pilotfish.models.deadline import deadline


class Work:
    """Requests that end when they are told to."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.begun: list[int] = []
        self.ends: dict[int, asyncio.Event] = {}

    async def one(self, number: int, model: str = "") -> None:
        async with self.admission.place(model):
            self.begun.append(number)
            self.ends[number] = asyncio.Event()
            await self.ends[number].wait()

    async def start(self, *numbers: int, model: str = "") -> list[asyncio.Task[None]]:
        tasks = []
        for number in numbers:
            tasks.append(asyncio.create_task(self.one(number, model)))
            await asyncio.sleep(0)
        return tasks


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_first_come_first_served_and_never_more_than_there_are_places() -> None:
    work = Work(Admission(2, 10, 10))
    tasks = await work.start(0, 1, 2, 3, 4)
    assert (work.begun, work.admission.active, work.admission.waiting) == ([0, 1], 2, 3)
    for number in range(5):
        work.ends[number].set()
        await turns()
        assert work.begun == list(range(min(5, number + 3)))
    await asyncio.gather(*tasks)
    assert (work.admission.active, work.admission.waiting) == (0, 0)


async def test_a_full_queue_refuses_at_once_with_a_time() -> None:
    admission = Admission(1, 2, 7.5)
    work = Work(admission)
    tasks = await work.start(0, 1, 2)
    with pytest.raises(Refusal) as caught:
        await work.one(3)
    refusal = caught.value
    assert (refusal.status, refusal.code, admission.refused) == (503, "overloaded", 1)
    assert refusal.retry_after == 7.5  # nothing has ended yet: nothing better is known
    for number in range(3):
        work.ends[number].set()
        await turns()
    await asyncio.gather(*tasks)


async def test_the_retry_time_follows_the_recent_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("pilotfish.gateway.admission.time.monotonic", lambda: now)
    admission = Admission(1, 100, 10)
    for _ in range(1000):  # two a second, long enough for the average to settle
        now += 0.5
        async with admission.place():
            pass
    work = Work(admission)
    tasks = await work.start(*range(21))  # one works, twenty wait
    assert admission.retry_after() == pytest.approx(21 / 2, rel=0.05)
    for number in range(21):
        work.ends[number].set()
        await turns()
    await asyncio.gather(*tasks)


async def test_waiting_too_long_is_refused_and_takes_no_place() -> None:
    admission = Admission(1, 5, 0.02)
    work = Work(admission)
    (task,) = await work.start(0)
    with pytest.raises(Refusal, match=r"within 0\.02 s"):
        await work.one(1)
    assert admission.waiting == 0
    work.ends[0].set()
    await task
    assert admission.active == 0


async def test_a_deadline_shortens_the_wait() -> None:
    admission = Admission(1, 5, 60)
    work = Work(admission)
    (task,) = await work.start(0)
    began = time.monotonic()
    with deadline(0.02), pytest.raises(Refusal):
        await work.one(1)
    assert time.monotonic() - began < 5
    work.ends[0].set()
    await task


async def test_who_leaves_gives_the_turn_to_the_next() -> None:
    admission = Admission(1, 5, 10)
    work = Work(admission)
    first, second, third = await work.start(0, 1, 2)
    second.cancel()
    await turns()
    assert admission.waiting == 1
    work.ends[0].set()
    await turns()
    assert work.begun == [0, 2]
    work.ends[2].set()
    await asyncio.gather(first, third)
    assert (admission.active, admission.waiting) == (0, 0)


async def test_a_place_given_in_the_moment_of_leaving_is_not_lost() -> None:
    admission = Admission(1, 5, 10)
    work = Work(admission)
    first, second, third = await work.start(0, 1, 2)
    work.ends[0].set()
    while not first.done():
        await asyncio.sleep(0)
    second.cancel()  # its turn has come, but it has not run yet
    await turns()
    assert 2 in work.begun
    for event in work.ends.values():
        event.set()
    await asyncio.gather(first, second, third, return_exceptions=True)
    assert (admission.active, admission.waiting) == (0, 0)


async def test_a_model_that_hangs_leaves_places_for_the_others() -> None:
    work = Work(Admission(100, 1000, 10))
    hanging = await work.start(*range(200), model="bad")
    assert (work.admission.active, work.admission.waiting) == (80, 120)
    more = await work.start(*range(1000, 1200), model="worse")
    assert work.admission.active == 96  # 16 of the 20 that were left
    for number in range(2000, 2050):  # one at a time, a model that works is never held up
        task = asyncio.create_task(work.one(number, "good"))
        await turns()
        work.ends[number].set()
        await task
    assert (work.admission.active, work.admission.waiting) == (96, 120 + 184)
    for task in hanging:
        task.cancel()
    await turns()
    assert 16 < sum(number >= 1000 for number in work.begun) - 50 <= 80
    for task in more:
        task.cancel()
    await asyncio.gather(*hanging, *more, return_exceptions=True)
    assert (work.admission.active, work.admission.waiting) == (0, 0)
    assert work.admission._held == {}


async def test_a_free_place_goes_to_the_first_who_may_have_it() -> None:
    work = Work(Admission(10, 100, 10))
    first = await work.start(*range(8), model="a")
    other = await work.start(8, model="b")
    late = await work.start(10, 11, model="a") + await work.start(12, 13, model="b")
    assert work.begun == [
        *range(9),
        12,
    ]  # "a" has its share: its requests wait, those of "b" do not
    work.ends[8].set()
    await turns()
    assert work.begun[-1] == 13
    for number in (0, 1, 2):
        work.ends[number].set()
        await turns()
    assert work.begun[-2:] == [10, 11]
    for event in work.ends.values():
        event.set()
    await asyncio.gather(*first, *other, *late)
    assert (work.admission.active, work.admission.waiting) == (0, 0)


@pytest.mark.parametrize("how", ["leaves", "gives up"])
async def test_a_place_is_not_given_to_one_who_has_just_gone(how: str) -> None:
    admission = Admission(1, 5, 10)
    work = Work(admission)
    assert admission._take("")
    first, second = await work.start(1, 2)
    if how == "leaves":
        first.cancel()
    else:
        admission._give_up("", admission._queues[""][0])
    admission._give_back("")  # before the first has run again
    await turns()
    assert work.begun == [2]
    work.ends[2].set()
    await asyncio.gather(first, second, return_exceptions=True)
    assert (admission.active, admission.waiting) == (0, 0)


async def test_an_error_inside_frees_the_place() -> None:
    admission = Admission(1, 0, 10)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            async with admission.place():
                raise ZeroDivisionError
    assert admission.active == 0


async def test_a_storm_leaves_no_place_behind() -> None:
    admission = Admission(4, 8, 0.01)
    most = 0

    async def one(number: int) -> None:
        nonlocal most
        async with admission.place(str(number % 3)):
            most = max(most, admission.active)
            await asyncio.sleep(0.001 * (number % 7))

    tasks = [asyncio.create_task(one(number)) for number in range(300)]
    await asyncio.sleep(0.002)
    for task in tasks[::5]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} == {
        type(None),
        Refusal,
        asyncio.CancelledError,
    }
    assert (admission.active, admission.waiting, most) == (0, 0, 4)


@pytest.mark.parametrize(("active", "waiting", "seconds"), [(0, 1, 1), (1, -1, 1), (1, 1, -1)])
def test_senseless_limits_are_refused(active: int, waiting: int, seconds: float) -> None:
    with pytest.raises(ConfigError, match="max_active"):
        Admission(active, waiting, seconds)
