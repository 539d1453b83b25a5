"""What it costs a model, on this machine, to read ``k`` tokens at once: measured once, and kept.

Speculation pays where reading several tokens takes hardly longer than one. That differs a lot: on two
cores a quantised model of llama.cpp takes nearly ``k`` times as long, a float32 one of torch hardly
longer (the cost is reading the weights). So it is measured, in a second or two, with the model's own
session.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pilotfish.models.protocols import TokenModel

FORM = 2  # of what is kept; another is measured again
SIZES = (1, 2, 3, 4, 6, 8, 12, 17)
_PAST = 128  # tokens that are there already
_SECONDS = 1.0  # after which no further round begins
_ROUNDS = (3, 9)  # at least, at most
_STEADY = 1.5  # most that the median may be of the fastest
_DISTURBED = 3600.0  # seconds that a disturbed measurement is used


@dataclass(frozen=True)
class CostCurve:
    """Seconds to read ``k`` tokens at once, linear between the measured sizes.

    Attributes:
        seconds: By size, ascending.
        steady: Whether nothing else disturbed the measurement.
    """

    seconds: Mapping[int, float]
    steady: bool = True

    def __call__(self, k: int) -> float:
        """Seconds for ``k`` tokens; beyond the largest size in proportion to its last step."""
        sizes = list(self.seconds)
        costs = list(self.seconds.values())
        if k <= sizes[-1] or len(sizes) < 2:
            return float(np.interp(k, sizes, costs))
        slope = (costs[-1] - costs[-2]) / (sizes[-1] - sizes[-2])
        return costs[-1] + max(slope, 0.0) * (k - sizes[-1])

    def table(self) -> str:
        """The curve in a line: milliseconds, and how many times one token's."""
        one = self(1)
        return "  ".join(f"{k}: {1e3 * s:.1f} ms (x{s / one:.2f})" for k, s in self.seconds.items())


def measure(model: TokenModel, sizes: tuple[int, ...] = SIZES) -> CostCurve:
    """Time a model: the fastest of some rounds for each size, for what disturbs one makes it longer.

    More tokens may take less: torch reads eight at once faster than two on some processors.
    """
    session = model.session()
    sizes = tuple(k for k in sizes if k < session.room) or (1,)
    past = max(1, min(_PAST, session.room - sizes[-1]))  # of a short context what fits
    text = model.tokenize("The quick brown fox jumps over the lazy dog. ") or [0]
    some = (text * past)[:past]
    session.feed(some, last=1)
    found: dict[int, list[float]] = {k: [] for k in sizes}
    started = time.perf_counter()
    for done in range(-1, _ROUNDS[1]):  # the first round only warms up
        if done >= _ROUNDS[0] and time.perf_counter() - started > _SECONDS:
            break
        for k in sizes:
            began = time.perf_counter()
            session.feed(some[:k], last=k)
            if done >= 0:
                found[k].append(time.perf_counter() - began)
            session.rewind(len(some))
    fastest = {k: min(found[k]) for k in sizes}
    steady = all(np.median(found[k]) < _STEADY * fastest[k] for k in sizes)
    return CostCurve(fastest, steady)


def measured(model: TokenModel, folder: Path) -> CostCurve:
    """The curve from an earlier measurement on this machine, or a new one.

    One that was disturbed is kept for an hour only.

    Args:
        model: Whose.
        folder: Of the user's cache.
    """
    machine = f"{platform.machine()}-{os.cpu_count()}-{platform.node()}"
    kind = f"{FORM}-{type(model).__name__}-{_identity(model)}-{model.vocab}"
    name = hashlib.sha256(f"{kind}|{machine}".encode()).hexdigest()[:16]
    path = folder / "speculation" / f"{name}.json"
    try:
        kept = json.loads(path.read_text())
        steady = bool(kept["steady"])
        if steady or time.time() - path.stat().st_mtime < _DISTURBED:
            return CostCurve({int(k): float(s) for k, s in kept["seconds"].items()}, steady)
    except FileNotFoundError:
        pass
    except (ValueError, KeyError, TypeError, AttributeError):
        path.unlink(missing_ok=True)  # half written or edited: measuring again costs half a second
    curve = measure(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    stored = {
        "model": kind,
        "machine": machine,
        "seconds": dict(curve.seconds),
        "steady": curve.steady,
    }
    part.write_text(json.dumps(stored))
    part.replace(path)
    return curve


def _identity(model: TokenModel) -> str:
    """What its speed depends on: two files may have one name, and one file many settings."""
    own = getattr(model, "identity", None)
    members = getattr(model, "models", None)  # of a composite
    if own is None and members:
        own = "+".join(map(_identity, members))
    return f"{model.name}|{own or ''}"
