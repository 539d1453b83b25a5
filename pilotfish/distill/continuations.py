"""A model's own continuations of prompts: what a student of its distribution should read.

A draft is asked where the target's own text has led, so it learns on the target's text and not on that of
people (DistillSpec, Zhou et al. 2024). Several continuations are written at once where the model can. A
line of the file is one of them, so a run that was killed goes on with the next group.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from pilotfish.distill.language_model import TokenSequence
from pilotfish.errors import InputError
from pilotfish.models.batching import feed_all
from pilotfish.models.protocols import TokenModel
from pilotfish.models.sampling import Sampler
from pilotfish.progress import Progress

GROUP = 16  # continuations written at once
SHORTEST = 2  # tokens of a continuation that is worth keeping


class Continuation(msgspec.Struct, frozen=True):
    """What followed a prompt.

    Attributes:
        prompt: Tokens that the model read.
        answer: Tokens that it wrote, the one that ends the answer included.
        temperature: At which it drew them; 0 took the likeliest.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    temperature: float

    def sequence(self, begin: int | None = None) -> TokenSequence:
        """Both together; the answer is to be learned, or what comes after the first ``begin`` tokens."""
        tokens = np.array(self.prompt + self.answer, np.int64)
        return TokenSequence(tokens, len(self.prompt) if begin is None else max(1, begin))


def continue_prompts(
    model: TokenModel,
    prompts: Sequence[tuple[Sequence[int], float]],
    file: Path,
    *,
    longest: int = 128,
    most: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Continuation]:
    """Let a model continue prompts.

    Args:
        model: It.
        prompts: As it reads them, each at least one token, with the temperature of its continuation.
        file: JSON lines; what is there already is not written again.
        longest: Tokens of a continuation.
        most: Stop where so many tokens are reached; default: all prompts.
        seed: Of the draws; those of one continuation do not depend on any other.
        progress: Told of the tokens, or of the continuations where ``most`` is None.

    Returns:
        Those with at least two tokens, in order.

    Raises:
        InputError: The file holds something else.
    """
    plan = [(tuple(prompt), heat) for prompt, heat in prompts]
    file.parent.mkdir(parents=True, exist_ok=True)
    found = _read(file)
    for done, (prompt, heat) in zip(found, plan, strict=False):
        if done.prompt != prompt or done.temperature != heat:
            raise InputError(
                f"{file} holds continuations of other prompts.",
                remedy="Name another folder, or remove that file.",
            )
    tokens = sum(len(done.answer) for done in found)
    with (progress or Progress()).stage("Continuations", most or len(plan)) as stage:
        stage.advance(tokens if most else len(found))
        while len(found) < len(plan) and (most is None or tokens < most):
            group = _fitting(model, plan[len(found) : len(found) + GROUP], longest)
            samplers = [
                Sampler({"temperature": heat, "seed": seed + len(found) + i})
                for i, (_, heat) in enumerate(group)
            ]
            answers = _write(model, [prompt for prompt, _ in group], samplers, longest)
            new = [
                Continuation(prompt, tuple(answer), heat)
                for (prompt, heat), answer in zip(group, answers, strict=True)
            ]
            with file.open("ab") as stream:
                stream.write(b"".join(msgspec.json.encode(one) + b"\n" for one in new))
            found += new
            written = sum(map(len, answers))
            tokens += written
            stage.advance(written if most else len(new))
    return [one for one in _up_to(found, most) if len(one.answer) >= SHORTEST]


def _up_to(found: Sequence[Continuation], most: int | None) -> Sequence[Continuation]:
    """The first that have so many tokens: where a group began and ended must not show."""
    totals = np.cumsum([len(one.answer) for one in found])
    return found if most is None else found[: int(np.searchsorted(totals, most)) + 1]


def _fitting(
    model: TokenModel, group: list[tuple[tuple[int, ...], float]], longest: int
) -> list[tuple[tuple[int, ...], float]]:
    """As many of a group as surely fit a context that all sessions may share; at least one."""
    room, fit = model.session().room, 0
    for prompt, _ in group:
        room -= len(prompt) + longest
        fit += room >= 0
    return group[: max(1, fit)]


def _write(
    model: TokenModel, prompts: Sequence[Sequence[int]], samplers: Sequence[Sampler], longest: int
) -> list[list[int]]:
    """One group, token by token; a prompt is read once, and who has ended is fed no more."""
    different = list(dict.fromkeys(map(tuple, prompts)))
    first = [model.session() for _ in different]
    read = feed_all(model, first, different, last=1)
    places = [different.index(tuple(prompt)) for prompt in prompts]
    sessions = [
        first[place].fork() if place in places[:i] else first[place]
        for i, place in enumerate(places)
    ]
    answers: list[list[int]] = [[] for _ in prompts]
    going, rows = list(range(len(prompts))), [read[place] for place in places]
    while going:
        still = []
        for i, row in zip(going, rows, strict=True):
            token = samplers[i].choose(row[0])
            answers[i].append(token)
            if not model.ends(token) and len(answers[i]) < longest and sessions[i].room > 1:
                still.append(i)
        going = still
        new = [[answers[i][-1]] for i in going]
        rows = feed_all(model, [sessions[i] for i in going], new, last=1) if going else []
    return answers


def _read(file: Path) -> list[Continuation]:
    """The whole lines of a file; half of one, from a kill, is cut off."""
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        return []
    whole = raw[: raw.rfind(b"\n") + 1]
    if len(whole) < len(raw):
        file.write_bytes(whole)
    return list(_lines(file, whole))


def _lines(file: Path, raw: bytes) -> Iterator[Continuation]:
    for number, line in enumerate(raw.splitlines(), 1):
        try:
            yield msgspec.json.decode(line, type=Continuation)
        except (msgspec.MsgspecError, json.JSONDecodeError) as error:
            raise InputError(f"{file}, line {number}, is no continuation: {error}.") from error


def frequent_tokens(
    continuations: Sequence[Continuation], size: int, vocab: int, always: Sequence[int] = ()
) -> list[int]:
    """The tokens that a small output layer should have, ascending.

    Args:
        continuations: Count their tokens, those of answers first.
        size: How many; ``vocab`` or more takes all.
        vocab: Tokens that there are.
        always: Taken whatever their number, such as those that end an answer.

    Returns:
        ``min(size, vocab)`` tokens; where counts are equal, the lower numbers, which byte pair encoding
        gave to what it saw more often.
    """
    if size >= vocab:
        return list(range(vocab))
    counts: Any = np.zeros(vocab)
    for one in continuations:
        np.add.at(counts, list(one.answer), 1.0)
        np.add.at(counts, list(one.prompt), 1e-6)
    counts[list(always)] = np.inf
    best = np.argsort(-counts, kind="stable")[:size]
    return sorted(int(token) for token in best)
