"""The circuit breaker, its states one by one, on a clock of its own."""

from __future__ import annotations

import random

import pytest

from pilotfish.errors import Unavailable
from pilotfish.models.breaker import Breaker
from pilotfish.models.settings import BreakerSettings


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def breaker(clock: Clock, **settings: float | int) -> Breaker:
    return Breaker(BreakerSettings(**settings), clock)  # type: ignore[arg-type]


def attempt(subject: Breaker, good: bool | None) -> None:
    subject.record(subject.admit(), good)


def fail(subject: Breaker, times: int) -> None:
    for _ in range(times):
        attempt(subject, False)


def test_it_opens_at_the_share_and_not_below(clock: Clock) -> None:
    subject = breaker(clock, failure_share=0.5, minimum=10)
    for _ in range(6):
        attempt(subject, True)
    fail(subject, 5)
    assert subject.state == "closed"  # 5 of 11
    fail(subject, 1)
    assert (subject.state, subject.opened) == ("open", 1)  # 6 of 12


def test_few_attempts_never_open_it(clock: Clock) -> None:
    subject = breaker(clock, minimum=10)
    fail(subject, 9)
    assert subject.state == "closed"
    fail(subject, 1)
    assert subject.state == "open"


def test_what_is_older_than_the_window_is_forgotten(clock: Clock) -> None:
    subject = breaker(clock, minimum=10, window=30)
    fail(subject, 9)
    clock.now += 31
    fail(subject, 1)
    assert subject.state == "closed"
    clock.now += 10
    fail(subject, 9)
    assert subject.state == "open"


def test_the_count_is_that_of_a_sliding_window(clock: Clock) -> None:
    """Compared with the plain list of attempts, in random order over random times."""
    rng = random.Random(0)
    for _ in range(50):
        subject = breaker(clock, minimum=5, failure_share=0.6, window=10)
        attempts: list[tuple[float, bool]] = []
        for _ in range(200):
            clock.now += rng.choice([0, 0.1, 1.0, 3.0])
            good = rng.random() < 0.55
            attempts.append((clock.now, good))
            slot = clock.now // 1.0
            recent = [g for when, g in attempts if when // 1.0 > slot - 10]
            attempt(subject, good)
            if not good and len(recent) >= 5 and recent.count(False) >= 0.6 * len(recent):
                assert subject.state == "open"
                break
            assert subject.state == "closed"
        clock.now += 1000


def test_open_it_refuses_and_says_for_how_long(clock: Clock) -> None:
    subject = breaker(clock, minimum=1, open_seconds=5)
    fail(subject, 1)
    clock.now += 2
    with pytest.raises(Unavailable, match=r"next attempt in 3 s") as caught:
        subject.admit()
    assert caught.value.retry_after == 3
    assert caught.value.retryable


def test_a_probe_that_succeeds_closes_it(clock: Clock) -> None:
    subject = breaker(clock, minimum=1, open_seconds=5)
    fail(subject, 1)
    clock.now += 5
    assert subject.state == "half-open"
    ticket = subject.admit()
    assert subject.try_admit() is None  # one probe at a time
    subject.record(ticket, True)
    assert (subject.state, subject.wait) == ("closed", 0.0)


def test_the_time_doubles_while_probes_fail_up_to_its_end(clock: Clock) -> None:
    subject = breaker(clock, minimum=1, open_seconds=5, max_open_seconds=30)
    fail(subject, 1)
    waits = []
    for _ in range(5):
        waits.append(subject.wait)
        clock.now += subject.wait
        fail(subject, 1)
    assert waits == [5, 10, 20, 30, 30]


def test_it_starts_anew_after_a_quiet_window_and_not_before(clock: Clock) -> None:
    subject = breaker(clock, minimum=1, open_seconds=5, window=30)
    for quiet, wait in ((0, 5), (1, 10), (29, 20), (31, 5)):
        clock.now += quiet
        fail(subject, 1)
        assert subject.wait == wait
        clock.now += wait
        attempt(subject, True)
        assert subject.state == "closed"


def test_as_many_probes_as_are_allowed(clock: Clock) -> None:
    subject = breaker(clock, minimum=1, probes=3)
    fail(subject, 1)
    clock.now += 5
    tickets = [subject.try_admit() for _ in range(5)]
    assert [ticket is not None for ticket in tickets] == [True] * 3 + [False] * 2


def test_a_probe_whose_caller_left_makes_way_for_the_next(clock: Clock) -> None:
    subject = breaker(clock, minimum=1)
    fail(subject, 1)
    clock.now += 5
    attempt(subject, None)
    attempt(subject, True)
    assert subject.state == "closed"


def test_a_probe_that_hangs_does_not_hold_the_door_for_ever(clock: Clock) -> None:
    subject = breaker(clock, minimum=1, open_seconds=5)
    fail(subject, 1)
    clock.now += 5
    subject.admit()
    clock.now += 4.9
    assert subject.try_admit() is None
    clock.now += 0.1
    attempt(subject, True)
    assert subject.state == "closed"


def test_attempts_from_before_decide_nothing_now(clock: Clock) -> None:
    subject = breaker(clock, minimum=1)
    old = [subject.admit() for _ in range(3)]
    fail(subject, 1)
    clock.now += 5
    probe = subject.admit()
    subject.record(old[0], False)
    subject.record(old[1], True)
    assert subject.state == "half-open"
    subject.record(probe, True)
    subject.record(old[2], False)
    assert subject.state == "closed"


def test_it_rests_for_as_long_as_it_was_asked_to(clock: Clock) -> None:
    subject = breaker(clock, max_open_seconds=60)
    subject.rest(7)
    assert (subject.state, subject.wait, subject.opened) == ("open", 7, 0)
    subject.rest(3)
    assert subject.wait == 7
    subject.rest(1e9)
    assert subject.wait == 60
    clock.now += 60
    attempt(subject, True)
    assert subject.state == "closed"
