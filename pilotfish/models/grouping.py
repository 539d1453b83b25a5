"""Many small blocking calls as a few large ones: group commit.

What arrives while one transaction is being written goes together in the next (D. DeWitt et al. 1984,
"Implementation Techniques for Main Memory Database Systems"). Nobody waits for a group to fill: a lone
item goes at once, and under load the groups grow by themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from pilotfish.errors import StoreError

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_GROUP = 500


class GroupCaller(Generic[Item, Result]):
    """Runs a blocking function in a thread, on all items that arrived while it last ran.

    When a group fails for another reason than the store, each of its items is tried alone, so that one
    record that cannot be written does not take the others with it.

    Args:
        run: Takes items, returns as many results in the same order.
    """

    def __init__(self, run: Callable[[list[Item]], list[Result]]) -> None:
        self._run = run
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> Result:
        """The function's result for this item; raises what it raised.

        An item that was handed over is processed even when its caller is cancelled.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting[:MAX_GROUP], self._waiting[MAX_GROUP:]
            error = await self._try(group)
            if error is None:
                continue
            if len(group) == 1 or isinstance(error, StoreError):
                _refuse(group, error)
                continue
            for pair in group:
                if alone := await self._try([pair]):
                    _refuse([pair], alone)

    async def _try(self, group: list[tuple[Item, asyncio.Future[Result]]]) -> BaseException | None:
        items = [item for item, _ in group]
        # Gathered, so that an error of any kind reaches the callers instead of ending this worker.
        [results] = await asyncio.gather(
            asyncio.to_thread(self._run, items), return_exceptions=True
        )
        if isinstance(results, BaseException):
            return results
        for (_, future), result in zip(group, results, strict=True):
            if not future.done():
                future.set_result(result)
        return None


def _refuse(group: list[tuple[Item, asyncio.Future[Result]]], error: BaseException) -> None:
    for _, future in group:
        if not future.done():
            future.set_exception(error)
