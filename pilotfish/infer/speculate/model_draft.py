"""Drafts by a smaller model, of the target's vocabulary or of another.

With the same vocabulary the draft draws each token as the request asks, and hands over the distribution
that it drew from, which Leviathan et al. 2023 need to take as many as can be taken. With another
vocabulary the draft writes text, and the text is read again as the target's tokens: no distribution over
these is known, so each is taken with the probability that the target gives it. That is exact for any
guess, wherever it came from, as long as it does not depend on the target's own random draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pilotfish.infer.speculate.drafts import Drafted
from pilotfish.models.held import Held
from pilotfish.models.protocols import Floats, TokenModel
from pilotfish.models.sampling import Proposal, Sampler
from pilotfish.models.worker import Check
from pilotfish.records import Request

_SHAPES = ("temperature", "top_p", "top_k", "min_p")


class ModelDraft:
    """A token model that drafts.

    Args:
        model: It.
        target: Whom for.
        same: Whether their vocabularies are the same.
        cost: Seconds that one token of it takes.
    """

    def __init__(self, model: TokenModel, target: TokenModel, *, same: bool, cost: float) -> None:
        self.name = model.name
        self.cost = cost
        self.same = same
        self._model = model
        self._target = target
        self._held = Held(model)
        self._sampler = Sampler({})
        self._certain: list[int] = []  # in the draft's own vocabulary
        self._answer: list[int] = []  # in the target's
        self._prompt: list[int] = []

    def begin(self, request: Request, prompt: Sequence[int]) -> None:
        """A new answer."""
        shape = {name: request.params.get(name) for name in _SHAPES}
        seed = request.params.get("seed")
        # Its draws must not be the target's own, or what is proposed would tell what will be accepted.
        self._sampler = Sampler({**shape, "seed": None if seed is None else int(seed) + 2**33})
        if self.same:
            self._prompt = list(prompt)
        else:
            plain = replace(request, params={})
            self._prompt = self._model.prompt_tokens(plain)
        self._answer = []
        self._certain = list(self._prompt)

    def extend(self, tokens: Sequence[int]) -> None:
        """These tokens are certain now."""
        if self.same:
            self._certain.extend(tokens)
            return
        self._answer.extend(tokens)
        text = b"".join(map(self._target.token_bytes, self._answer)).decode("utf-8", "ignore")
        self._certain = self._prompt + self._model.tokenize(text)

    def propose(self, most: int, check: Check) -> Drafted:
        """Up to ``most`` tokens, fewer where the draft would end the answer."""
        row, _ = self._held.hold(self._certain, check)
        return Drafted(self._drawn(row, most) if self.same else self._read_again(row, most))

    def _drawn(self, row: Floats, most: int) -> list[Proposal]:
        proposals: list[Proposal] = []
        while True:
            kept, p = self._sampler.distribution(row)
            if len(kept) == 1:
                proposals.append(Proposal(int(kept[0])))
            else:
                token = self._sampler.draw(kept, p)
                q = np.zeros(self._target.vocab)
                q[kept] = p
                proposals.append(Proposal(token, q))
            if len(proposals) == most or self._model.ends(proposals[-1].token):
                return proposals
            row = self._held.session.feed([proposals[-1].token])[0]

    def _read_again(self, row: Floats, most: int) -> list[Proposal]:
        said = b""
        for _ in range(most):
            token = self._sampler.choose(row)
            if self._model.ends(token):
                break
            said += self._model.token_bytes(token)
            row = self._held.session.feed([token])[0]
        text = said.decode("utf-8", "ignore")
        return [Proposal(token) for token in self._target.tokenize(text)[:most]]
