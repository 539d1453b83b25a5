"""A model that answers as its target would, sooner where a draft guesses well.

The target reads the draft's guesses in one go and keeps those that hold. What is sampled, constrained
and stopped is what the target says (:mod:`pilotfish.models.generate`), so greedy answers are the
target's own and sampled ones follow its distribution exactly (Leviathan et al. 2023; Chen et al. 2023).
How many tokens are guessed follows from measured cost and live acceptance
(:mod:`pilotfish.infer.speculate.length`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from pilotfish.config import Config, default_cache_dir
from pilotfish.errors import ConfigError
from pilotfish.infer.speculate.cost import CostCurve, measured
from pilotfish.infer.speculate.drafts import Draft
from pilotfish.infer.speculate.length import LONGEST, Length
from pilotfish.infer.speculate.lookup import LookupDraft
from pilotfish.infer.speculate.model_draft import ModelDraft
from pilotfish.models.generate import NOTHING, write
from pilotfish.models.held import Held, HeldSource
from pilotfish.models.protocols import Floats, Model, TokenModel
from pilotfish.models.sampling import Proposal
from pilotfish.models.settings import read_settings
from pilotfish.models.worker import Check, Emit, Worker
from pilotfish.records import Chunk, Completion, Decision, Request, Usage


class SpeculativeSettings(msgspec.Struct, kw_only=True, frozen=True):
    """Settings of ``kind = "speculative"``; ``models`` are the target and, if it has one, the draft.

    Attributes:
        longest: Guesses at most; 0 leaves the target alone.
        ngram: Longest n-gram that is looked up, without a draft model.
    """

    longest: Annotated[int, msgspec.Meta(ge=0, le=64)] = LONGEST
    ngram: Annotated[int, msgspec.Meta(ge=2, le=16)] = 4


@dataclass
class Figures:
    """What speculation did so far.

    Attributes:
        tokens: Written.
        steps: Times that the target read something for them.
        guessed: Tokens that were drafted and read.
        accepted: Those that held.
    """

    tokens: int = 0
    steps: int = 0
    guessed: int = 0
    accepted: int = 0


class Speculative:
    """A target and a draft.

    Args:
        target: Whose answers these are.
        draft: Default: looks n-grams up (:class:`~pilotfish.infer.speculate.lookup.LookupDraft`).
        curve: What reading ``k`` tokens costs the target; default: measured, and kept in ``cache``.
        longest: Guesses at most.
        cache: Folder for measurements.
        name: Of the composite.

    Attributes:
        figures: What it did so far.
        length: Chooses how many tokens are guessed; its rates say how often they hold.
    """

    def __init__(
        self,
        target: TokenModel,
        draft: Draft | None = None,
        *,
        curve: CostCurve | None = None,
        longest: int = LONGEST,
        cache: Path | None = None,
        name: str = "speculative",
    ) -> None:
        self.target = target
        self.draft = draft or LookupDraft()
        self.curve = curve or measured(target, cache or default_cache_dir())
        self.length = Length(self.curve, self.draft.cost, longest)
        self.figures = Figures()
        self.name = name
        self._decision = Decision(name, name, f"speculative-{self.draft.name}")
        self._worker = Worker(name)
        self._held: Held | None = None

    @classmethod
    def from_members(
        cls, name: str, members: Sequence[Model], settings: Mapping[str, Any], config: Config
    ) -> Speculative:
        """Build from ``[models.NAME]`` with ``kind = "speculative"``; see :class:`SpeculativeSettings`.

        Raises:
            ConfigError: There are more than two models, or one gives no logits.
        """
        checked = read_settings("speculative", SpeculativeSettings, settings)
        if not 1 <= len(members) <= 2:
            raise ConfigError(
                f"[models.{name}] has {len(members)} models, but expected a target, and perhaps a draft."
            )
        models: list[TokenModel] = []
        for member in members:
            if not isinstance(member, TokenModel):
                raise ConfigError(
                    f"[models.{name}] cannot use {member.name}, which gives no logits.",
                    remedy="Name models that run here: a GGUF file, or one of `pilotfish models`.",
                )
            models.append(member)
        cache = config.cache_dir
        draft: Draft = LookupDraft(longest=checked.ngram)
        if len(models) == 2:
            draft = model_draft(models[1], models[0], cache)
        return cls(models[0], draft, longest=checked.longest, cache=cache, name=name)

    def close(self) -> None:
        """End the thread; the members are closed by whoever started them."""
        self._worker.close()

    async def complete(self, request: Request) -> Completion:
        """Answer one request as the target would.

        Raises:
            RequestRefused: A parameter or message cannot be used, or it does not fit the context.
        """
        return await self._worker.run(lambda check: self._write(request, check, NOTHING))

    def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """Answer piece by piece; the last chunk carries the whole completion."""
        work = lambda check, emit: self._write(request, check, emit)  # noqa: E731
        return self._worker.stream(work, (self._decision,))

    def _write(self, request: Request, check: Check, emit: Emit) -> Completion:
        self._held = self._held or Held(self.target)
        answer = write(self.target, _Guessing(self, self._held), request, check, emit)
        decisions = (*answer.decisions, self._decision)
        return replace(answer, model=self.name, decisions=decisions)


def model_draft(model: TokenModel, target: TokenModel, cache: Path) -> ModelDraft:
    """A draft model, timed, with whatever vocabulary it has."""
    size = min(model.vocab, target.vocab)
    same = all(model.token_bytes(t) == target.token_bytes(t) for t in range(size))
    same = same and model.vocab <= target.vocab
    return ModelDraft(model, target, same=same, cost=measured(model, cache)(1))


class _Guessing(HeldSource):
    """Logits of one answer; what a draft of this machine costs is time, and that is in the latency."""

    def __init__(self, whole: Speculative, held: Held) -> None:
        super().__init__(held)
        self._whole = whole
        self._certain = 0  # how many tokens of the session are certain
        # Guesses that were read, and the row after each.
        self._ahead: list[tuple[Proposal, Floats]] = []
        self._practice: list[Proposal] = []  # guesses that were not read
        self._kind = 0

    def begin(self, request: Request, check: Check) -> tuple[Floats, Usage]:
        row, prompt = super().begin(request, check)
        tokens = self._held.session.tokens
        self._certain = len(tokens)
        self._whole.draft.begin(request, tokens)
        return row, prompt

    def next(self, token: int, check: Check) -> Floats:
        whole = self._whole
        whole.figures.tokens += 1
        whole.draft.extend([token])
        if self._ahead:
            guess, row = self._ahead[0]
            whole.length.tell(self._kind, guess.token == token)
            if guess.token == token:
                whole.figures.accepted += 1
                self._certain += 1
                del self._ahead[0]
                if self._ahead:
                    self.proposal = self._ahead[0][0]
                    return row
                # All held: the row after the last one is known, and nothing is guessed for it yet.
                self.proposal = None
                return row
            self._ahead = []
        elif self._practice:
            right = self._practice[0].token == token
            whole.length.tell(self._kind, right)
            self._practice = self._practice[1:] if right else []
        return self._read(token, check)

    def _read(self, token: int, check: Check) -> Floats:
        whole, session = self._whole, self._held.session
        if len(session.tokens) > self._certain:
            session.rewind(self._certain)
        guesses = self._guess(check)
        rows = session.feed([token, *(guess.token for guess in guesses)], last=len(guesses) + 1)
        whole.figures.steps += 1
        whole.figures.guessed += len(guesses)
        self._certain += 1
        self._ahead = list(zip(guesses, rows[1:], strict=True))
        self.proposal = guesses[0] if guesses else None
        return np.asarray(rows[0])

    def _guess(self, check: Check) -> list[Proposal]:
        whole, draft = self._whole, self._whole.draft
        most = min(whole.length.longest, self._held.session.room - 1)
        if most <= 0:
            return []
        if draft.cost:
            k = min(whole.length.choose(), most)
            self._kind = 0
            return draft.propose(k, check).proposals if k else []
        drafted = draft.propose(most, check)
        if self._practice:  # an earlier guess is still being compared
            still = self._practice
        else:
            still, self._kind = drafted.proposals, drafted.kind
        k = whole.length.choose(drafted.kind) if drafted.proposals else 0
        if k:
            self._practice, self._kind = [], drafted.kind
            return drafted.proposals[:k]
        self._practice = still
        return []
