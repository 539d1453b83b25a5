"""Drafts by a smaller model, of the target's vocabulary or of another.

With the same vocabulary the draft draws each token as the request asks, and hands over the distribution
that it drew from, which Leviathan et al. 2023 need to take as many as can be taken; a branch is a second
draw, without the first one. With another vocabulary the draft writes text, its likeliest, and the text is
read again as the target's tokens: no distribution over these is known, so each is taken with the
probability that the target gives it. That is exact for any guess, wherever it came from, as long as it
does not depend on the target's own random draws.

How sure the draft is tells how likely a guess is, so that is its kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from pilotfish.infer.speculate.drafts import Node, Worth
from pilotfish.models.held import Held, common_prefix
from pilotfish.models.protocols import Floats, TokenModel
from pilotfish.models.sampling import Doubles, Sampler
from pilotfish.models.worker import Check
from pilotfish.records import Request

_SHAPES = ("temperature", "top_p", "top_k", "min_p")
_SURE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


class ModelDraft:
    """A token model that drafts.

    Args:
        model: It.
        target: Whom for.
        same: Whether their vocabularies are the same.
        cost: Seconds in which it reads ``k`` tokens at once, or one token.
    """

    def __init__(
        self,
        model: TokenModel,
        target: TokenModel,
        *,
        same: bool,
        cost: float | Callable[[int], float],
    ) -> None:
        self.name = model.name
        self.same = same
        self.behind = 0
        self._cost = cost
        self._model = model
        self._target = target
        self._held = Held(model)
        self._sampler = Sampler({})
        self._request = Request(())
        self._prompt: list[int] | None = None  # in the draft's own vocabulary, once it is needed
        self._answer: list[int] = []  # in the target's
        self._guessed: list[int] = []

    def cost(self, tokens: int) -> float:
        """Seconds to read so many tokens."""
        return self._cost(tokens) if callable(self._cost) else self._cost * tokens

    def begin(self, request: Request, prompt: Sequence[int]) -> None:
        """A new answer."""
        shape = {name: request.params.get(name) for name in _SHAPES}
        seed = request.params.get("seed")
        # Its draws must not be the target's own, or what is proposed would tell what will be accepted.
        self._sampler = Sampler({**shape, "seed": None if seed is None else int(seed) + 2**33})
        self._request = replace(request, params={})
        self._prompt = list(prompt) if self.same else None
        held = common_prefix(self._held.session.tokens, prompt) if self.same else 0
        self.behind = len(prompt) - held  # of another vocabulary about as many
        self._answer, self._guessed = [], []

    def extend(self, token: int) -> None:
        """This token is certain now."""
        self._answer.append(token)
        if self._guessed[:1] == [token]:  # the draft has read it
            del self._guessed[0]
        else:
            self._guessed = []
            self.behind += 1

    def propose(self, most: int, branches: int, worth: Worth, check: Check) -> list[Node]:
        """A chain, which ends where the draft ends the answer, and beside its guesses others."""
        row, _ = self._held.hold(self._certain(), check)
        nodes = (
            self._drawn(row, most, branches, worth)
            if self.same
            else self._read_again(row, most, worth)
        )
        # The last guess was not read by the draft itself.
        self._guessed = [node.token for node in nodes if not node.rank][:-1]
        self.behind = 0
        return nodes

    def _certain(self) -> list[int]:
        """What is certain, in the draft's vocabulary."""
        if self._prompt is None:
            self._prompt = self._model.prompt_tokens(self._request)
        if self.same:
            return self._prompt + self._answer
        text = b"".join(map(self._target.token_bytes, self._answer)).decode("utf-8", "ignore")
        return self._prompt + self._model.tokenize(text)

    def _drawn(self, row: Floats, most: int, branches: int, worth: Worth) -> list[Node]:
        chain: list[Node] = []
        beside: list[Node] = []
        while True:
            parent = len(chain) - 1
            for rank, (token, sure, q) in enumerate(self._candidates(row, branches)):
                node = Node(token, parent, q, _kind(sure), rank)
                (beside if rank else chain).append(node)
            token = chain[-1].token
            if len(chain) == most or self._model.ends(token) or not worth(chain):
                return chain + beside
            row = self._held.session.feed([token])[0]

    def _candidates(self, row: Floats, branches: int) -> list[tuple[int, float, Doubles | None]]:
        """Tokens for one place, each drawn without those before it; with the draft's own probability."""
        kept, p = self._sampler.distribution(row)
        if len(kept) == 1 and not self._sampler.temperature:
            best = kept if branches == 1 else _largest(row, branches)
            total = np.exp(row - row[best[0]]).sum(dtype=np.float64)
            return [(int(t), float(np.exp(row[t] - row[best[0]]) / total), None) for t in best]
        found: list[tuple[int, float, Doubles | None]] = []
        while len(found) < min(branches, len(kept)):
            token = self._sampler.draw(kept, p)
            q = np.zeros(self._target.vocab)
            q[kept] = p
            found.append((token, float(q[token]), q))
            p = p * (kept != token)
            if not p.sum():
                break
            p /= p.sum()
        return found

    def _read_again(self, row: Floats, most: int, worth: Worth) -> list[Node]:
        said, ends, sure = b"", [], []
        drafted: list[Node] = []
        while True:
            token = int(row.argmax())
            if self._model.ends(token):
                break
            chance = float(1 / np.exp(row - row[token]).sum(dtype=np.float64))
            said += self._model.token_bytes(token)
            ends.append(len(said))
            sure.append(chance)
            drafted.append(Node(token, len(drafted) - 1, None, _kind(chance)))
            if len(drafted) == most or not worth(drafted):
                break
            row = self._held.session.feed([token])[0]
        nodes: list[Node] = []
        at = 0
        for token in self._target.tokenize(said.decode("utf-8", "ignore"))[:most]:
            # As sure as the draft was of its own tokens that end within this one, or around its end.
            begins, at = at, at + len(self._target.token_bytes(token))
            within = [p for end, p in zip(ends, sure, strict=True) if begins < end <= at]
            around = [p for end, p in zip(ends, sure, strict=True) if end >= at]
            chance = float(np.prod(within)) if within else (around or [1.0])[0]
            nodes.append(Node(token, len(nodes) - 1, None, _kind(chance)))
        return nodes


def _kind(chance: float) -> int:
    """Sure in steps that are finer near certainty."""
    return int(np.searchsorted(_SURE, chance))


def _largest(row: Floats, n: int) -> list[int]:
    """The ``n`` likeliest tokens, likeliest first."""
    few = np.argpartition(row, len(row) - n)[len(row) - n :]
    return [int(token) for token in few[np.argsort(-row[few], kind="stable")]]
