"""When, where and beside what a benchmark ran, as its results say it."""

from __future__ import annotations

import os
from datetime import date
from typing import Any

from pilotfish.loop.account import hardware


def machine() -> str:
    """The processor and its number of cores."""
    found = hardware()
    return f"{found['cpu']}, {found['cores']} cores"


def load_now() -> float:
    """Processes that want to run, over the last minute."""
    return round(os.getloadavg()[0], 1)


def one_thread(before: float, note: str) -> dict[str, Any]:
    """Of a run in one thread.

    Args:
        before: :func:`load_now` when it began.
        note: What else the machine was doing.
    """
    return {
        "date": date.today().isoformat(),
        "hardware": f"{machine()}, one thread used",
        "load before and after": [before, load_now()],
        "note": note,
    }


def with_torch(note: str) -> dict[str, Any]:
    """Of a run that needs torch, of which it gives the version.

    Args:
        note: What else there is to say.
    """
    import torch

    return {
        "date": date.today().isoformat(),
        "hardware": hardware(),
        "load_average": os.getloadavg(),
        "note": note,
        "torch": torch.__version__,
    }
