"""What every training in torch shares: threads, seeds, the order of batches, the learning rate.

The learning rate warms up and then falls in lines (Devlin et al. 2019): a step's rate follows from its
number alone, and so does the order of an epoch's batches from the seed and the epoch's number. So a
training that was killed goes on as if it had not been.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

WARM_UP = 0.1  # of all steps
_TOGETHER = 8  # batches' worth of texts that are sorted by length


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """All cores but one: torch's threads spin, and with one more busy process two cores crawl."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) - 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch, and put its own state back afterwards."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def rate_share(step: int, steps: int, warm_up: float = WARM_UP) -> float:
    """Share of the full learning rate at a step, counted from 0.

    Args:
        step: Steps that are done.
        steps: Of the whole schedule.
        warm_up: Share of them during which the rate rises.

    >>> [round(rate_share(step, 10, 0.2), 2) for step in range(10)]
    [0.5, 1.0, 0.89, 0.78, 0.67, 0.56, 0.44, 0.33, 0.22, 0.11]
    """
    rising = max(1, round(warm_up * steps))
    return min((step + 1) / rising, max(0.0, (steps - step) / (steps - rising + 1)))


def by_length(
    lengths: NDArray[np.int64], size: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Every text once, in random batches of texts of like length.

    Args:
        lengths: Of each text.
        size: Texts in a batch; one batch may be smaller.
        rng: Draws the order.

    Returns:
        Positions of each batch's texts; ``ceil(n / size)`` batches.
    """
    order = rng.permutation(len(lengths))
    batches = []
    for start in range(0, len(order), _TOGETHER * size):
        chunk = order[start : start + _TOGETHER * size]
        chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
        batches += [chunk[i : i + size] for i in range(0, len(chunk), size)]
    return [batches[i] for i in rng.permutation(len(batches))]
