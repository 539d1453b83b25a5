"""Ask a local model whether it knows, before it answers: no training, one forward pass.

Query-level uncertainty (Chen et al. 2025): the prompt asks the model to say Yes or No to whether
it can answer the query, and ``P(Yes)`` is read from its states without generating anything. Their
Internal Confidence is ``sum_nl w_n w_l P(Yes | token n, layer l)``, each layer's state going through
the output layer as it is, with weights proportional to ``exp(-locality d^2)`` at the distance ``d``
from the last token and the last layer.

Two forms. ``"internal"`` is the paper's, for models that give their layers' states (the
``transformers`` backend). ``"last-layer"`` sums over tokens alone, for models that give nothing but
logits (llama.cpp); at the paper's locality of 1 the last layer has 73% of the weight. In both the
last four tokens have all but 0.01% of it; ``window=1`` with the last layer is the paper's
baseline P(Yes). It says something about one model; the others get their mean recorded quality.
Where outcomes show the model's quality, its confidence is mapped to it by isotonic regression;
without, the confidence is reported as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import ConfigError, RequestRefused
from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors.fitted import Arrays, State
from pilotfish.infer.predictors.predictor import Prediction
from pilotfish.infer.predictors.settings import AtLeastOne, NotNegative
from pilotfish.models.held import common_prefix
from pilotfish.models.protocols import Encoder, TokenModel
from pilotfish.models.scoring import token_model as load_token_model

PROMPT = (
    "Respond only with 'Yes' or 'No' to indicate whether you are capable of answering the following "
    "question accurately.\nQuestion: {query}\nAnswer Yes or No:"
)
MAX_CHARS = 8_000

Form = Literal["internal", "last-layer"]


@runtime_checkable
class LayeredModel(TokenModel, Protocol):
    """A token model that shows what its layers would say."""

    def layer_logits(self, tokens: Sequence[int], of: Sequence[int], *, last: int = 1) -> Floats:
        """Logits of the tokens ``of`` at every layer, ``[layers, last, len(of)]``.

        Raises:
            RequestRefused: They do not fit the context.
        """
        ...


class SelfKnowledge:
    """A local model's confidence, mapped to quality.

    Args:
        models: Their names.
        local: The local model's name among them.
        token_model: The local model.
        spec: What loads it again.
        window: Last tokens that are averaged.
        locality: How fast their weights fall off.
        form: Which layers are read.
        steps: Confidences and the qualities they stand for ``[steps, 2]``; empty without labels.
        mean: Mean quality of each model ``[models]``.
        std: Standard error of the quality ``[models]``.
    """

    embeds: ClassVar[bool] = False
    needs: ClassVar[str] = "texts"
    waits: ClassVar[bool] = True

    def __init__(
        self,
        models: tuple[str, ...],
        local: str,
        token_model: TokenModel,
        spec: str,
        window: int,
        locality: float,
        form: Form,
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
        self.form = form
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
        window: AtLeastOne = 4,
        locality: NotNegative = 1.0,
        form: Form | Literal[""] = "",
    ) -> Self:
        """Read the local model's confidence in each question, and what became of it.

        Args:
            outcomes: The qualities may all be unknown.
            encoder: Not used.
            seed: Not used; nothing is random.
            token_model: The local model; default: what ``spec`` loads.
            spec: For example ``transformers:qwen2.5-coder-0.5b``; stored, to load the model again.
            local: Its name among the outcomes' models; default the first.
            window: Last tokens of the prompt that are averaged; 1 is P(Yes).
            locality: How fast the weights of tokens and layers fall off.
            form: ``"internal"``: all layers; ``"last-layer"``: the model's logits only; default: the
                first where the model gives its layers' states.

        Raises:
            ConfigError: There is no local model, ``local`` is none of the outcomes' models, or the
                model does not give what the form reads.
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
        model = token_model if token_model is not None else load_token_model(spec)
        used: Form = form or ("internal" if isinstance(model, LayeredModel) else "last-layer")
        _check(model, used)
        mean = np.nan_to_num(outcomes.mean_quality(), nan=0.5)
        known = ~np.isnan(outcomes.quality)
        std = np.sqrt(np.maximum(mean * (1 - mean), 1e-4) / np.maximum(known.sum(axis=0), 1))
        nothing = np.zeros((0, 2), np.float32)
        made = cls(outcomes.models, local, model, spec, window, locality, used, nothing, mean, std)
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
        """``sum w P(Yes)`` for each text ``[n]``, in [0, 1]."""
        own = self.token_model, self.window, self.locality, self.form
        return np.array([internal_confidence(text, *own) for text in texts], np.float32)

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
        return {**settings, "locality": self.locality, "form": self.form}, arrays

    @classmethod
    def restore(cls, settings: Mapping[str, Any], arrays: Arrays, encoder: Encoder | None) -> Self:
        """Rebuild from :meth:`state`; loads the local model.

        Raises:
            ConfigError: The model that the spec names here does not give what the form reads.
        """
        model = load_token_model(settings["spec"])
        _check(model, settings["form"])
        return cls(
            settings["models"],
            settings["local"],
            model,
            settings["spec"],
            int(settings["window"]),
            float(settings["locality"]),
            settings["form"],
            arrays["steps"],
            arrays["mean"],
            arrays["std"],
        )


def _check(model: TokenModel, form: str) -> None:
    if form not in ("internal", "last-layer"):
        raise ConfigError(f"Got form {form!r}, but expected internal or last-layer.")
    if form == "internal" and not isinstance(model, LayeredModel):
        raise ConfigError(
            f"The model {model.name!r} gives the logits of its last layer only.",
            remedy="Load it by the transformers backend, or set form=last-layer",
        )


def internal_confidence(
    query: str,
    model: TokenModel,
    window: int = 4,
    locality: float = 1.0,
    form: Form = "last-layer",
) -> float:
    """The weighted mean of ``P(Yes)`` against ``P(No)`` over the last tokens, and over layers.

    A question that does not fit the model's context has the confidence 0.

    Args:
        query: The question; its first 8,000 characters are read.
        model: Gives logits.
        window: Last tokens of the prompt.
        locality: Weights are proportional to ``exp(-locality d^2)``, ``d`` tokens or layers from the
            end.
        form: Which layers are read.
    """
    prompt = PROMPT.format(query=query[:MAX_CHARS])
    # Read with the prompt: alone, some tokenizers write a space of their own before both answers.
    yes, no = model.tokenize(f"{prompt} Yes"), model.tokenize(f"{prompt} No")
    asked = common_prefix(yes, no)
    said = yes[asked], no[asked]
    tokens = [*getattr(model, "opening", ()), *yes[:asked]]
    last = min(window, len(tokens))
    try:
        if form == "internal" and isinstance(model, LayeredModel):
            logits = model.layer_logits(tokens, said, last=last).astype(np.float64)
        else:
            session = model.session()
            if len(tokens) > last:
                session.feed(tokens[:-last], last=1)
            logits = session.feed(tokens[-last:])[None, :, said].astype(np.float64)
    except RequestRefused:  # longer than its context: it cannot answer that
        return 0.0
    p = 0.5 * (1 + np.tanh(0.5 * (logits[:, :, 0] - logits[:, :, 1])))
    return float(_weights(len(p), locality) @ p @ _weights(last, locality))


def _weights(count: int, locality: float) -> NDArray[np.float64]:
    """``exp(-locality d^2)`` for distances ``d`` from the end, summing to 1."""
    weight = np.exp(-locality * np.arange(count)[::-1] ** 2.0)
    return np.asarray(weight / weight.sum(), np.float64)
