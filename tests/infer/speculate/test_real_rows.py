"""On pulled models: the rows by which guesses are taken or not are those of plain feeding.

What is drawn then follows the target's distribution, because acceptance is exact for any rows (tested on
small vocabularies). Chains and trees, greedy and drawn, on both backends.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotfish.config import Config
from pilotfish.infer.speculate.cost import CostCurve
from pilotfish.infer.speculate.drafts import Node, Worth
from pilotfish.infer.speculate.guessing import Guessing
from pilotfish.infer.speculate.lookup import LookupDraft
from pilotfish.infer.speculate.speculative import Speculative
from pilotfish.models.generate import write
from pilotfish.models.held import Held
from pilotfish.models.load import load_model
from pilotfish.models.sampling import Sampler
from pilotfish.models.worker import Check
from pilotfish.records import Request
from tests.infer.speculate.test_speculative import Always

FLAT = CostCurve({1: 1.0, 16: 1.001})
TEXT = "The bridge is 212 metres long. The bridge is 212 metres long. The bridge has seven arches."
# Largest difference of a logit, and of a distribution in total variation. llama.cpp sums attention in
# half precision and rounds what it multiplies to 8 bits, so that the order of its cells shows: nothing in
# a chain (the same to the bit in a fresh context), 0.35 in a tree. A wrong row differs by 5 and more.
MODELS = {
    "llama.cpp:qwen2.5-coder-0.5b": (0.8, 0.06),
    "transformers:smollm2-135m": (0.002, 0.001),
}


@pytest.fixture(scope="module", params=MODELS)
def named(request: pytest.FixtureRequest) -> Iterator[tuple[str, Any]]:
    if request.param.startswith("transformers"):
        pytest.importorskip("torch", reason='needs torch: pip install "pilotfish[torch]"')
    model: Any = load_model(request.param, Config())
    yield request.param, model
    model.close()


class Watched(Guessing):
    """Remembers the rows that it gave, and the tokens that were chosen."""

    def begin(self, request: Request, check: Check) -> Any:
        row, usage = super().begin(request, check)
        self.rows, self.chosen = [row.copy()], list[int]()
        return row, usage

    def next(self, token: int, check: Check) -> Any:
        self.chosen.append(token)
        row = super().next(token, check)
        self.rows.append(row.copy())
        return row


class Beside(LookupDraft):
    """Looks up, and guesses something else beside each guess where it may branch."""

    def propose(self, most: int, branches: int, worth: Worth, check: Check) -> list[Node]:
        chain = super().propose(most, 1, worth, check)
        beside = [Node(node.token + 1, node.parent, rank=1) for node in chain]
        return chain + beside if branches > 1 else chain


@pytest.mark.pulled
@pytest.mark.parametrize("branches", [1, 3])
@pytest.mark.parametrize("params", [{}, {"temperature": 0.8, "seed": 3}], ids=["greedy", "drawn"])
def test_rows_are_those_of_plain_feeding(
    named: tuple[str, Any], branches: int, params: dict[str, Any], tmp_path: Path
) -> None:
    name, model = named
    fast = Speculative(model, Beside(), curve=FLAT, branches=branches, cache=tmp_path)
    fast.length = Always(FLAT, 0.0, 6)
    request = Request.of(f"Repeat this word for word: {TEXT}", max_tokens=16, **params)
    source = Watched(fast, Held(model))
    write(model, source, request, lambda: None)
    plain = model.session()
    rows = [plain.feed(model.prompt_tokens(request), last=1)[0]]
    rows += [plain.feed([token])[0] for token in source.chosen]
    logits, variation = MODELS[name]
    np.testing.assert_allclose(np.array(source.rows), np.array(rows), atol=logits)
    sampler = Sampler({"temperature": 0.8})
    for mine, its in zip(source.rows, rows, strict=True):
        p, q = (np.zeros(model.vocab) for _ in range(2))
        for into, row in ((p, mine), (q, its)):
            kept, some = sampler.distribution(row)
            into[kept] = some
        assert np.abs(p - q).sum() / 2 < variation
    assert fast.figures.accepted > 1
    assert bool(fast.figures.trees) == (branches > 1)
    fast.close()
