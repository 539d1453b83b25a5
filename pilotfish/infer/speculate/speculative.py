"""A model that answers as its target would, sooner where a draft guesses well.

The target reads the draft's guesses in one go and keeps those that hold. What is sampled, constrained
and stopped is what the target says (:mod:`pilotfish.models.generate`), so greedy answers are the
target's own and sampled ones follow its distribution exactly (Leviathan et al. 2023; Chen et al. 2023).
Which guesses are read follows from measured cost and live acceptance
(:mod:`pilotfish.infer.speculate.length`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec

from pilotfish.config import Config, default_cache_dir
from pilotfish.errors import ConfigError
from pilotfish.infer.speculate.cost import CostCurve, measured
from pilotfish.infer.speculate.drafts import Draft
from pilotfish.infer.speculate.guessing import Guessing
from pilotfish.infer.speculate.length import LONGEST, Length
from pilotfish.infer.speculate.lookup import LookupDraft
from pilotfish.infer.speculate.model_draft import ModelDraft
from pilotfish.models.generate import NOTHING, write
from pilotfish.models.held import Held
from pilotfish.models.protocols import Model, TokenModel
from pilotfish.models.settings import read_settings
from pilotfish.models.worker import Check, Emit, Worker
from pilotfish.records import Chunk, Completion, Decision, Request

BRANCHES = 3


class SpeculativeSettings(msgspec.Struct, kw_only=True, frozen=True):
    """Settings of ``kind = "speculative"``; ``models`` are the target and, if it has one, the draft.

    Attributes:
        longest: Guesses at most; 0 leaves the target alone.
        branches: Different guesses for one place at most; 1 drafts chains, more of them trees where these
            are expected to be faster.
        ngram: Longest n-gram that is looked up, without a draft model.
    """

    longest: Annotated[int, msgspec.Meta(ge=0, le=64)] = LONGEST
    branches: Annotated[int, msgspec.Meta(ge=1, le=8)] = BRANCHES
    ngram: Annotated[int, msgspec.Meta(ge=2, le=16)] = 4


@dataclass
class Figures:
    """What speculation did so far.

    Attributes:
        tokens: Written.
        steps: Times that the target read something for them.
        guessed: Tokens that were drafted and read.
        accepted: Those that held.
        trees: Steps whose guesses had branches.
    """

    tokens: int = 0
    steps: int = 0
    guessed: int = 0
    accepted: int = 0
    trees: int = 0


class Speculative:
    """A target and a draft.

    Args:
        target: Whose answers these are.
        draft: Default: looks n-grams up (:class:`~pilotfish.infer.speculate.lookup.LookupDraft`).
        curve: What reading ``k`` tokens costs the target; default: measured, and kept in ``cache``.
        longest: Guesses at most.
        branches: Different guesses for one place at most.
        cache: Folder for measurements.
        name: Of the composite.

    Attributes:
        figures: What it did so far.
        length: Chooses which guesses are read; its rates say how often they hold.
        typical: Tokens of an answer, of late.
    """

    def __init__(
        self,
        target: TokenModel,
        draft: Draft | None = None,
        *,
        curve: CostCurve | None = None,
        longest: int = LONGEST,
        branches: int = BRANCHES,
        cache: Path | None = None,
        name: str = "speculative",
    ) -> None:
        self.target = target
        self.draft = draft or LookupDraft()
        self.curve = curve or measured(target, cache or default_cache_dir())
        self.length = Length(self.curve, self.draft.cost(1), longest)
        self.branches = branches
        self.typical = 64.0
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
        longest, branches = checked.longest, checked.branches
        return cls(models[0], draft, longest=longest, branches=branches, cache=cache, name=name)

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
        answer = write(self.target, Guessing(self, self._held), request, check, emit)
        self.typical += 0.1 * (answer.usage.completion_tokens - self.typical)
        decisions = (*answer.decisions, self._decision)
        return replace(answer, model=self.name, decisions=decisions)


def model_draft(model: TokenModel, target: TokenModel, cache: Path) -> ModelDraft:
    """A draft model, timed, with whatever vocabulary it has."""
    size = min(model.vocab, target.vocab)
    same = all(model.token_bytes(t) == target.token_bytes(t) for t in range(size))
    same = same and model.vocab <= target.vocab
    return ModelDraft(model, target, same=same, cost=measured(model, cache))
