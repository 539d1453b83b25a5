"""The tree of errors: drawn as it is, picklable, and each with what helps."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest

from pilotfish import errors
from pilotfish.errors import (
    MissingExtra,
    MissingModel,
    PilotfishError,
    RateLimited,
    Unavailable,
    UnknownName,
)

KINDS = {
    name: kind
    for name, kind in vars(errors).items()
    if inspect.isclass(kind) and issubclass(kind, PilotfishError)
}

SAMPLES = {
    UnknownName: lambda: UnknownName("backend", "opnai", ["openai", "fake"]),
    MissingExtra: lambda: MissingExtra("Training", "torch"),
    MissingModel: lambda: MissingModel("qwen2.5-coder-1.5b"),
    RateLimited: lambda: RateLimited("slow down", retry_after=2.5),
    Unavailable: lambda: Unavailable("timed out", retry_after=1.0, remedy="Wait."),
}


def sample(kind: type[PilotfishError]) -> PilotfishError:
    return SAMPLES.get(kind, lambda: kind("Got 1, but expected 2.", remedy="Do it."))()


def test_the_drawing_shows_the_tree() -> None:
    """Depth and parent of each line of the docstring's drawing are those of the classes."""
    drawn: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    assert errors.__doc__ is not None
    for line in errors.__doc__.splitlines():
        match = re.match(r"([ |]*)(?:[|']- )?([A-Z]\w+)(?:  .*)?$", line)
        if not match or match[2] not in KINDS:
            continue
        column = match.start(2)
        while above and above[-1][0] >= column:
            above.pop()
        drawn[match[2]] = above[-1][1] if above else "Exception"
        above.append((column, match[2]))
    assert drawn == {name: kind.__base__.__name__ for name, kind in KINDS.items()}  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_errors_travel_between_processes(kind: type[PilotfishError]) -> None:
    error = sample(kind)
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is kind
        assert str(twin) == str(error)
        assert vars(twin) == vars(error)
        assert twin.retryable == error.retryable


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_error_takes_a_remedy_and_shows_it_last(kind: type[PilotfishError]) -> None:
    error = sample(kind)
    assert str(error).splitlines()[0].startswith(error.message.splitlines()[0])
    if error.remedy:
        assert str(error).endswith(error.remedy)
    assert kind.__doc__


def test_only_waiting_helps_with_the_retryable_ones() -> None:
    assert {name for name, kind in KINDS.items() if kind.retryable} == {
        "RateLimited",
        "Unavailable",
    }


def test_a_typo_is_answered_with_the_nearest_name() -> None:
    error = UnknownName("backend", "opnai", ["openai", "fake"])
    assert "Did you mean 'openai'?" in str(error)
    assert "fake, openai" in str(error)
    far = UnknownName("backend", "zzz", ["openai"])
    assert "Did you mean" not in str(far)
    assert "none are registered" in str(UnknownName("student", "x", []))


def test_remedies_are_commands() -> None:
    assert 'pip install "pilotfish[torch]"' in str(MissingExtra("Training", "torch"))
    assert "pilotfish pull tiny" in str(MissingModel("tiny"))
