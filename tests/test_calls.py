"""Asking models: from synchronous code, many at once, streamed, interrupted, forked."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from pilotfish.errors import ConfigError, InputError, ModelError, PilotfishError, RateLimited
from pilotfish.models.calls import ask, complete_many, stream, wait
from pilotfish.records import Chunk, Completion, Request


class Echo:
    """Answers with the prompt after a moment; counts how many are under way."""

    name = "echo"

    def __init__(self, seconds: float = 0.0, failing: tuple[str, ...] = ()) -> None:
        self.seconds, self.failing = seconds, failing
        self.running = self.most = self.begun = self.cancelled = 0

    async def complete(self, request: Request) -> Completion:
        self.begun += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        if request.prompt in self.failing:
            raise RateLimited("slow down", retry_after=1.0)
        if request.prompt == "bug":
            raise ZeroDivisionError("a defect")
        return Completion(text=request.prompt, model=self.name)


class Streaming(Echo):
    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        for letter in request.prompt:
            yield Chunk(text=letter)
        yield Chunk(completion=await self.complete(request))


def prompts(count: int) -> Iterator[Request]:
    return (Request.of(str(i)) for i in range(count))


def test_wait_from_plain_code_and_from_a_thread_pool() -> None:
    from concurrent.futures import ThreadPoolExecutor

    assert ask(Echo(), "hi", temperature=0).text == "hi"
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: ask(Echo(0.01), str(i)).text, range(32)))
    assert answers == [str(i) for i in range(32)]


async def test_wait_inside_a_loop_as_in_a_notebook() -> None:
    assert ask(Echo(), Request.of("hi")).text == "hi"


def test_wait_raises_what_the_coroutine_raised() -> None:
    with pytest.raises(RateLimited, match="slow down"):
        ask(Echo(failing=("x",)), "x")
    with pytest.raises(ZeroDivisionError):
        ask(Echo(), "bug")


def test_calls_share_one_loop() -> None:
    async def which() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    assert wait(which()) is wait(which())


def test_wait_within_wait_is_refused_and_does_not_hang() -> None:
    async def careless() -> str:
        return ask(Echo(), "x").text

    with pytest.raises(PilotfishError, match="Await the coroutine"):
        wait(careless())
    assert ask(Echo(), "still works").text == "still works"


def test_wait_within_wait_from_a_worker_thread_works() -> None:
    async def careful() -> str:
        return (await asyncio.to_thread(ask, Echo(), "x")).text

    assert wait(careful()) == "x"


INTERRUPTED = """
import asyncio, signal, sys
from pilotfish.models.calls import wait

# a shell starts its background jobs with the signal ignored, and children inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)

async def work():
    try:
        print("begun", flush=True)
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.05)
        print("closed", flush=True)

try:
    wait(work())
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


def test_ctrl_c_cancels_and_waits_for_the_cleanup() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "begun\n"
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=20)
    assert out == "closed\nstopped\n"


FORKED = """
import asyncio, os, sys
from pilotfish.models.calls import wait

async def answer():
    await asyncio.sleep(0)
    return 7

assert wait(answer()) == 7
child = os.fork()
if child == 0:
    os._exit(wait(answer()))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs fork, which this system lacks")
def test_a_forked_child_gets_a_loop_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED], capture_output=True, text=True, timeout=20
    )
    assert done.stdout == "7\n", done.stderr


async def test_stream_of_a_model_that_streams_and_of_one_that_does_not() -> None:
    pieces = [chunk async for chunk in stream(Streaming(), Request.of("abc"))]
    assert [piece.text for piece in pieces] == ["a", "b", "c", ""]
    assert pieces[-1].completion == Completion(text="abc", model="echo")
    whole = [chunk async for chunk in stream(Echo(), Request.of("abc"))]
    assert [(piece.text, piece.completion is not None) for piece in whole] == [("abc", True)]


async def test_many_gives_every_position_once() -> None:
    model = Echo(0.001)
    answers = {i: answer async for i, answer in complete_many(model, prompts(100), concurrency=7)}
    assert {i: answer.text for i, answer in answers.items()} == {i: str(i) for i in range(100)}  # type: ignore[union-attr]
    assert model.most == 7


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_many_draws_requests_lazily(concurrency: int) -> None:
    drawn = 0

    def endless() -> Iterator[Request]:
        nonlocal drawn
        while True:
            drawn += 1
            yield Request.of("x")

    received = 0
    answers = complete_many(Echo(), endless(), concurrency=concurrency)
    async for _ in answers:
        received += 1
        assert drawn <= received + concurrency
        if received == 20:
            break
    await answers.aclose()  # type: ignore[attr-defined]


async def test_an_error_of_one_does_not_stop_the_others() -> None:
    model = Echo(failing=("3", "5"))
    answers = {i: answer async for i, answer in complete_many(model, prompts(10), concurrency=2)}
    assert sorted(answers) == list(range(10))
    assert {i for i, answer in answers.items() if isinstance(answer, ModelError)} == {3, 5}
    error = answers[3]
    assert isinstance(error, RateLimited)
    assert (error.retryable, error.retry_after) == (True, 1.0)


async def test_a_defect_stops_all_and_cancels_the_rest() -> None:
    model = Echo(seconds=30)

    class Defect(Echo):
        async def complete(self, request: Request) -> Completion:
            if request.prompt == "2":
                await asyncio.sleep(0.01)
                raise ZeroDivisionError
            return await model.complete(request)

    start = time.perf_counter()
    with pytest.raises(ZeroDivisionError):
        async for _ in complete_many(Defect(), prompts(50), concurrency=5):
            pass
    assert time.perf_counter() - start < 5
    assert (model.begun, model.cancelled, model.running) == (4, 4, 0)


async def test_a_broken_source_cancels_what_is_under_way() -> None:
    model = Echo(seconds=30)

    def broken() -> Iterator[Request]:
        yield Request.of("a")
        raise InputError("row 2 is unreadable")

    with pytest.raises(InputError):
        async for _ in complete_many(model, broken()):
            pass
    assert model.running == 0


async def test_leaving_early_cancels_the_rest() -> None:
    model = Echo(seconds=0.01)
    answers = complete_many(model, prompts(1000), concurrency=4)
    async for _ in answers:
        break
    await answers.aclose()  # type: ignore[attr-defined]
    assert model.running == 0
    assert model.begun <= 8


async def test_cancelling_the_caller_cancels_the_calls() -> None:
    model = Echo(seconds=30)

    async def consume() -> None:
        async for _ in complete_many(model, prompts(10), concurrency=3):
            pass

    task = asyncio.ensure_future(consume())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (model.begun, model.cancelled, model.running) == (3, 3, 0)


async def test_many_of_none() -> None:
    assert [pair async for pair in complete_many(Echo(), [])] == []


@pytest.mark.parametrize("concurrency", [0, -1])
async def test_a_senseless_concurrency_is_refused(concurrency: int) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        async for _ in complete_many(Echo(), prompts(3), concurrency=concurrency):
            pass
