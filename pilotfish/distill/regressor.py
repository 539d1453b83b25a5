"""The fine-tuned transformer for other rooms: several numbers for a text, not the classes of a task.

Routers predict the quality of every model's answer by an encoder that was fine-tuned for it. What does
that is :mod:`pilotfish.distill.finetune`; here it is wrapped so that it can be named in
:data:`pilotfish.models.LEARNERS`, since no middle room imports another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from pilotfish.distill.recipe import Floats, Lesson, State
from pilotfish.distill.transformer import BASE, unavailable_library
from pilotfish.errors import MissingExtra
from pilotfish.models.catalogue import locate
from pilotfish.records import Inputs

if TYPE_CHECKING:
    from pilotfish.distill.finetune import TransformerScorer


class FineTunedEncoder:
    """A BERT, fine-tuned whole with a linear head for several numbers.

    Args:
        scorer: The encoder and its head.
    """

    def __init__(self, scorer: TransformerScorer) -> None:
        self.scorer = scorer

    @classmethod
    def learn(
        cls,
        texts: Sequence[str],
        targets: Floats,
        *,
        seed: int = 0,
        base: str = BASE,
        epochs: float = 3.0,
    ) -> Self:
        """Fine-tune on log-odds, one sigmoid for each output.

        Args:
            texts: ``n`` of them.
            targets: In [0, 1], ``[n, outputs]``.
            seed: Of start and order.
            base: The pretrained encoder: its name in the catalogue, or a folder.
            epochs: Passes over the texts; 0 fits the head alone.

        Raises:
            MissingExtra: torch or transformers is not installed.
            MissingModel: The encoder was not pulled.
            ConfigError: The folder holds no BERT encoder.
        """
        _require()
        from pilotfish.distill.finetune import fine_tune, load_base

        inputs, weights = Inputs(list(texts)), np.ones(len(texts))
        lesson = Lesson(inputs, targets, weights, targets.shape[1], True, seed)
        folder = Path(base) if Path(base).is_dir() else locate(base)
        (scorer,) = fine_tune(load_base(folder), lesson, [epochs], of=max(epochs, 1.0))
        return cls(scorer)

    def encode(self, texts: Sequence[str]) -> Floats:
        """Unit rows ``[n, dim]`` of the encoder as it became."""
        return self.scorer.embed(self.scorer.tokens(texts))

    def head(self) -> tuple[Floats, Floats]:
        """Weights ``[dim, outputs]`` and bias ``[outputs]`` that give log-odds of rows."""
        weight, bias = self.scorer.head.weight, self.scorer.head.bias
        return weight.detach().cpu().numpy().T, bias.detach().cpu().numpy()

    def state(self) -> State:
        """JSON values and arrays; :meth:`restore` is the inverse."""
        return self.scorer.state()

    @classmethod
    def restore(cls, settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Rebuild from :meth:`state`.

        Raises:
            MissingExtra: torch or transformers is not installed.
            ArtifactError: The parts do not fit together.
        """
        _require()
        from pilotfish.distill.finetune import TransformerScorer

        return cls(TransformerScorer.restore(settings, arrays))


def _require() -> None:
    if unavailable_library():
        raise MissingExtra("A fine-tuned transformer", "torch")
