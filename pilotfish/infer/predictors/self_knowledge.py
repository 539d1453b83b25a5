"""Ask a local model whether it knows, before it answers: no training, one forward pass.

Query-level uncertainty (Chen et al. 2025): the prompt asks the model to say Yes or No to whether
it can answer the query, and ``P(Yes)`` is read from its logits without generating anything. Their
Internal Confidence is ``sum_nl w_n w_l P(Yes | token n, layer l)`` with weights proportional to
``exp(-locality d^2)`` at the distance ``d`` from the last token and the last layer.

Difference: a token model gives the logits of its last layer only, so the sum is over tokens alone;
at their locality of 1 the last layer has 73% of the weight and the last four tokens have
all but 0.01% of it. ``window=1`` is the paper's baseline P(Yes). It says something about one model;
the others get their mean recorded quality. Where outcomes show the model's quality, its confidence
is mapped to it by isotonic regression; without, the confidence is reported as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from pilotfish.errors import ConfigError, RequestRefused
from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors.fitted import Arrays, State
from pilotfish.infer.predictors.predictor import Prediction
from pilotfish.models.protocols import Encoder, TokenModel

PROMPT = (
    "Respond only with 'Yes' or 'No' to indicate whether you are capable of answering the following "
    "question accurately.\nQuestion: {query}\nAnswer Yes or No:"
)
MAX_CHARS = 8_000


class SelfKnowledge:
    """A local model's confidence, mapped to quality.

    Args:
        models: Their names.
        local: The local model's name among them.
        token_model: The local model.
        spec: What loads it again.
        window: Last tokens that are averaged.
        locality: How fast their weights fall off.
        steps: Confidences and the qualities they stand for ``[steps, 2]``; empty without labels.
        mean: Mean quality of each model ``[models]``.
        std: Standard error of the quality ``[models]``.
    """

    embeds: ClassVar[bool] = False
    needs: ClassVar[str] = "texts"

    def __init__(
        self,
        models: tuple[str, ...],
        local: str,
        token_model: TokenModel,
        spec: str,
        window: int,
        locality: float,
        steps: Floats,
        mean: Floats,
        std: Floats,
    ) -> None:
        self.models = models
        self.local = local
        self.token_model = token_model
        self.spec = spec
        self.window = window
        self.locality = locality
        self.steps = steps
        self.mean = mean
        self.std = std

    @classmethod
    def fit(
        cls,
        outcomes: Outcomes,
        encoder: Encoder | None,
        seed: int,
        *,
        token_model: TokenModel | None = None,
        spec: str = "",
        local: str = "",
        window: int = 4,
        locality: float = 1.0,
    ) -> Self:
        """Read the local model's confidence in each question, and what became of it.

        Args:
            outcomes: The qualities may all be unknown.
            encoder: Not used.
            seed: Not used; nothing is random.
            token_model: The local model; default: what ``spec`` loads.
            spec: For example ``llama.cpp:qwen2.5-coder-1.5b``; stored, to load the model again.
            local: Its name among the outcomes' models; default the first.
            window: Last tokens of the prompt that are averaged; 1 is P(Yes).
            locality: How fast their weights fall off.

        Raises:
            ConfigError: There is no local model, or ``local`` is none of the outcomes' models.
        """
        if token_model is None and not spec:
            raise ConfigError(
                "Got neither a token model nor a spec.",
                remedy="For example: fit_predictor('self-knowledge', outcomes, spec='llama.cpp:NAME')",
            )
        local = local or outcomes.models[0]
        if local not in outcomes.models:
            raise ConfigError(
                f"Got local = {local!r}, but the models are {', '.join(outcomes.models)}."
            )
        model = token_model if token_model is not None else _load(spec)
        mean = np.nan_to_num(outcomes.mean_quality(), nan=0.5)
        known = ~np.isnan(outcomes.quality)
        std = np.sqrt(np.maximum(mean * (1 - mean), 1e-4) / np.maximum(known.sum(axis=0), 1))
        nothing = np.zeros((0, 2), np.float32)
        made = cls(outcomes.models, local, model, spec, window, locality, nothing, mean, std)
        at = outcomes.models.index(local)
        if known[:, at].any():
            from sklearn.isotonic import IsotonicRegression

            rows = np.flatnonzero(known[:, at])
            sure = made.confidence([outcomes.texts[i] for i in rows])
            curve = IsotonicRegression(out_of_bounds="clip").fit(sure, outcomes.quality[rows, at])
            points = np.stack([curve.X_thresholds_, curve.y_thresholds_], axis=1)
            made.steps = points.astype(np.float32)
        return made

    def confidence(self, texts: Sequence[str]) -> Floats:
        """``sum_n w_n P(Yes | n)`` for each text ``[n]``, in [0, 1]."""
        return np.array(
            [yes_probability(self.token_model, text, self.window, self.locality) for text in texts],
            np.float32,
        )

    def predict(self, texts: Sequence[str]) -> Prediction:
        """The local model's expected quality, and the others' mean, ``[n, models]``."""
        mean = np.repeat(self.mean[None], len(texts), axis=0).astype(np.float32)
        sure = self.confidence(texts)
        if len(self.steps):
            sure = np.interp(sure, self.steps[:, 0], self.steps[:, 1]).astype(np.float32)
        mean[:, self.models.index(self.local)] = sure
        return Prediction(mean, np.repeat(self.std[None], len(texts), axis=0).astype(np.float32))

    def state(self) -> State:
        """The curve, and the spec of the local model; the model itself is not stored.

        Raises:
            ConfigError: It was fitted without a spec, so nothing could load the model again.
        """
        if not self.spec:
            raise ConfigError(
                "This predictor was fitted with a token model without its spec.",
                remedy="Fit it with spec='llama.cpp:NAME' to be able to store it.",
            )
        settings = {"local": self.local, "spec": self.spec, "window": self.window}
        arrays = {"steps": self.steps, "mean": self.mean, "std": self.std}
        return {**settings, "locality": self.locality}, arrays

    @classmethod
    def restore(cls, settings: Mapping[str, Any], arrays: Arrays, encoder: Encoder | None) -> Self:
        """Rebuild from :meth:`state`; loads the local model."""
        return cls(
            settings["models"],
            settings["local"],
            _load(settings["spec"]),
            settings["spec"],
            int(settings["window"]),
            float(settings["locality"]),
            arrays["steps"],
            arrays["mean"],
            arrays["std"],
        )


def _load(spec: str) -> TokenModel:
    from pilotfish.models.load import load_model

    model = load_model(spec)
    if not isinstance(model, TokenModel):
        raise ConfigError(
            f"Got the model {spec!r}, which gives no logits.",
            remedy="Name a local model, for example llama.cpp:qwen2.5-coder-1.5b",
        )
    return model


def yes_probability(model: TokenModel, query: str, window: int = 4, locality: float = 1.0) -> float:
    """The weighted mean over the last ``window`` tokens of ``P(Yes)`` against ``P(No)``.

    A question that does not fit the model's context has the probability 0.

    Args:
        model: Gives logits.
        query: The question; its first 8,000 characters are read.
        window: Last tokens of the prompt.
        locality: Weights are proportional to ``exp(-locality d^2)``, ``d`` tokens from the end.
    """
    try:
        return _read(model, query, window, locality)
    except RequestRefused:  # longer than its context: it cannot answer that
        return 0.0


def _read(model: TokenModel, query: str, window: int, locality: float) -> float:
    tokens = model.tokenize(PROMPT.format(query=query[:MAX_CHARS]))
    yes, no = model.tokenize(" Yes")[0], model.tokenize(" No")[0]
    session = model.session()
    last = min(window, len(tokens))
    if len(tokens) > last:
        session.feed(tokens[:-last])
    logits = session.feed(tokens[-last:]).astype(np.float64)
    p = 0.5 * (1 + np.tanh(0.5 * (logits[:, yes] - logits[:, no])))
    weight = np.exp(-locality * np.arange(last)[::-1] ** 2.0)
    return float((weight / weight.sum()) @ p)
