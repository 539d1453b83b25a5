"""Guesses are read by how likely they are; what is drawn must follow the target all the same.

Target and draft are tables of what follows each token, so that the distribution of whole answers is known
and thousands of them are drawn in a second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pilotfish.infer.speculate.cost import CostCurve
from pilotfish.infer.speculate.drafts import Node
from pilotfish.infer.speculate.guessing import Guessing
from pilotfish.infer.speculate.length import Acceptance, Length
from pilotfish.infer.speculate.model_draft import _SURE, ModelDraft
from pilotfish.infer.speculate.speculative import Speculative
from pilotfish.models.generate import write
from pilotfish.models.held import Held
from pilotfish.records import Request

VOCAB, WRITTEN, ANSWERS = 4, 4, 3000
CURVES = {
    "all are read": CostCurve({1: 1.0, 16: 1.0001}),
    "the likely are read": CostCurve({1: 1.0, 2: 1.5, 3: 2.0, 4: 2.4, 17: 8.0}),
    "two or none are read": CostCurve({1: 1.0, 2: 1.6, 3: 1.7, 4: 1.8, 17: 8.0}),
}


class Table:
    """A token model whose next token depends on the last one alone: ``p[last, next]``."""

    name = "table"
    vocab = VOCAB

    def __init__(self, p: np.ndarray[Any, Any]) -> None:
        self.rows = np.log(p).astype(np.float32)

    def token_bytes(self, token: int) -> bytes:
        return bytes([ord("A") + token])

    def ends(self, token: int) -> bool:
        return False

    def prompt_tokens(self, request: Request) -> list[int]:
        return [0]

    def session(self) -> TableSession:
        return TableSession(self)


class TableSession:
    def __init__(self, model: Table) -> None:
        self.model = model
        self.tokens: list[int] = []
        self.tree: list[int] = []
        self.room = 1000

    def feed(self, tokens: Sequence[int], *, last: int | None = None) -> np.ndarray[Any, Any]:
        self.tokens += tokens
        rows = self.model.rows[list(tokens)]
        return rows if last is None else rows[len(rows) - last :]

    def rewind(self, length: int) -> None:
        del self.tokens[length:]
        self.tree = []

    def fork(self) -> TableSession:
        raise NotImplementedError

    def feed_tree(self, tokens: Sequence[int], parents: Sequence[int]) -> np.ndarray[Any, Any]:
        self.tree = list(tokens)
        return self.model.rows[self.tree]

    def keep(self, path: Sequence[int]) -> None:
        self.tokens += [self.tree[node] for node in path]
        self.tree = []


class Fixed(Length):
    """Chooses by costs and rates that stay, and drafts whenever it may."""

    def timed(self, k: int, seconds: float) -> None: ...

    def account(self, tokens: int, seconds: float, *, drafted: bool) -> None: ...

    def tell(self, node: Node, accepted: bool) -> None: ...

    def begin(self) -> None: ...

    def begins(self, catch_up: float, left: float) -> bool:
        return True

    def worth(self, nodes: Sequence[Node]) -> bool:
        return len(nodes) < self.longest


@pytest.mark.parametrize("branches", [1, 3])
@pytest.mark.parametrize("curve", CURVES)
def test_draws_follow_the_target_whatever_is_read(curve: str, branches: int) -> None:
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(VOCAB), VOCAB), rng.dirichlet(np.full(VOCAB, 0.5), VOCAB)
    target: Any = Table(p)
    draft = ModelDraft(Table(q), target, same=True, cost=1e-9)  # type: ignore[arg-type]
    whole = Speculative(target, draft, curve=CURVES[curve], longest=3, branches=branches)
    whole.length = Fixed(CURVES[curve], 1e-9, 3)
    kinds = len(_SURE) + 1
    whole.length.rates = {
        (kind, rank): Acceptance((kind + 0.5) / kinds, weight=1e9)
        for kind, rank in product(range(kinds), range(branches))
    }
    seen: Counter[str] = Counter()
    for seed in range(ANSWERS):
        asked = Request.of("", max_tokens=WRITTEN, temperature=1.0, seed=seed)
        seen[write(target, Guessing(whole, Held(target)), asked, lambda: None).text] += 1
    whole.close()
    expected = {}
    for tokens in product(range(VOCAB), repeat=WRITTEN):
        text = b"".join(map(target.token_bytes, tokens)).decode()
        expected[text] = ANSWERS * np.prod(
            [p[a, b] for a, b in zip((0, *tokens), tokens, strict=False)]
        )
    likely = [text for text, count in expected.items() if count >= 6]
    counts = [seen[text] for text in likely]
    wanted = [expected[text] for text in likely]
    counts.append(ANSWERS - sum(counts))
    wanted.append(ANSWERS - sum(wanted))
    assert len(likely) > 20
    assert whole.figures.accepted > ANSWERS / 10
    assert stats.chisquare(counts, wanted).pvalue > 1e-3
