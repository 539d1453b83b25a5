"""A student for extraction: objects of one schema, field by field, and how sure the whole is.

Each field is learned the way its recorded values allow: few values by a classifier of the whole text
(as labels are), values that stand in the text by a tagger. Of a field that allows both, the
out-of-fold answers choose. The score of an object is the probability that every field is right, from the
product of theirs by a logistic curve fitted on out-of-fold objects, because fields fail together.
Only recorded types, keys and constants can come out, so every answer is valid under the schema.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.optimize
from numpy.typing import NDArray

from pilotfish.distill.fields import FieldStudent, FitField, Texts, fit_field, restore_field
from pilotfish.distill.objects import ABSENT, Path, Style, Validator, assemble, leaves, schema_of
from pilotfish.distill.tokens import Tokens, Vocabulary
from pilotfish.errors import ArtifactError, InputError
from pilotfish.models.objects import canonical_value, parse_object
from pilotfish.models.protocols import Encoder
from pilotfish.records import Inputs

FORMAT = "extraction 1"
NAME = "extraction"
FOLDS = 4
SURE = 1e-6  # probabilities are kept this far from 0 and 1 in logits
MOST_FIELDS = 40

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Objects:
    """What the large model extracted.

    Attributes:
        answers: Its answers in its own words ``[n]``.
        leaves: Their leaves by path ``[n]``.
        paths: All paths, in the order in which the answers have them.
        schema: What they show of their schema.
    """

    answers: Sequence[str]
    leaves: Sequence[Mapping[Path, Any]]
    paths: tuple[Path, ...]
    schema: Mapping[str, Any]

    @classmethod
    def of(cls, answers: Sequence[str]) -> Objects:
        """Read answers.

        Raises:
            BadAnswer: One is no JSON object.
            InputError: There are none, or they have too many fields.
        """
        objects = [parse_object(text) for text in answers]
        flat = [leaves(value) for value in objects]
        paths = _order(flat)
        if not paths or len(paths) > MOST_FIELDS:
            raise InputError(
                f"Got {len(answers)} objects with {len(paths)} different fields, but expected 1 to "
                f"{MOST_FIELDS}."
            )
        return cls(answers, flat, paths, schema_of(objects))

    def keys(self, path: Path) -> list[str]:
        """A field's values as canonical JSON ``[n]``; "" where the key is absent."""
        return [canonical_value(o[path]) if path in o else ABSENT for o in self.leaves]


def _order(flat: Sequence[Mapping[Path, Any]]) -> tuple[Path, ...]:
    """All paths; those of the most usual order first, others behind what they follow."""
    usual = Counter(tuple(one) for one in flat)
    out: list[Path] = []
    for order, _ in usual.most_common():
        at = 0
        for path in order:
            if path in out:
                at = out.index(path) + 1
            else:
                out.insert(at, path)
                at += 1
    return tuple(out)


@dataclass(frozen=True)
class Extraction:
    """A fitted student.

    Attributes:
        fields: What answers each field, in the order in which they are written.
        vocabulary: Of the tokens that taggers see.
        schema: That its answers are valid under.
        style: How they are written.
        confidence: Offset and slope of the logistic curve from the product's log-odds to the score.
        asked: The schema that requests ask for, None when they ask for none.
        encoder: What its classifiers embed with, or None.
    """

    fields: tuple[FieldStudent, ...]
    vocabulary: Vocabulary
    schema: Mapping[str, Any]
    style: Style
    confidence: tuple[float, float]
    asked: Mapping[str, Any] | None = None
    encoder: Encoder | None = None

    name = NAME

    @cached_property
    def _shown(self) -> Validator:
        return Validator(self.schema)

    @cached_property
    def _wanted(self) -> Validator | None:
        return None if self.asked is None else Validator(self.asked)

    def predict(self, inputs: Inputs | Sequence[str]) -> tuple[list[str], Floats]:
        """Answers as the large model would write them, and scores ``[n]`` in [0, 1]."""
        if not isinstance(inputs, Inputs):
            inputs = Inputs(inputs)
        texts = Texts.of(inputs, self.vocabulary)
        columns = [one.best(texts) for one in self.fields]
        logs = np.zeros(len(inputs))
        for column in columns:
            logs += np.log(np.maximum([p for _, p in column], SURE))
        scores = scores_of(logs, self.confidence)
        answers = []
        for i in range(len(inputs)):
            value = self._object([column[i][0] for column in columns])
            if value is None or not self._shown(value):
                # Fields that do not fit together, as an object beside its own absence.
                value, scores[i] = self._object([one.usual for one in self.fields]) or {}, 0.0
            if self._wanted is not None and not self._wanted(value):
                scores[i] = 0.0
            answers.append(self.style.write(value))
        return answers, scores.astype(np.float32)

    def _object(self, keys: Sequence[str]) -> dict[str, Any] | None:
        return assemble(
            {
                one.path: one.written(key)
                for one, key in zip(self.fields, keys, strict=True)
                if key != ABSENT
            }
        )

    def files(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]], dict[str, bytes]]:
        """What to store: JSON settings, arrays, and other files (none)."""
        card: dict[str, Any] = {
            "format": FORMAT,
            "schema": dict(self.schema),
            "asked": None if self.asked is None else dict(self.asked),
            "style": self.style.to_dict(),
            "confidence": list(self.confidence),
            "words": list(self.vocabulary.words),
            "shapes": list(self.vocabulary.shapes),
            "fields": [],
        }
        arrays: dict[str, NDArray[Any]] = {}
        for number, one in enumerate(self.fields):
            settings, own = one.state()
            card["fields"].append(settings)
            arrays |= {f"{number}.{k}": np.ascontiguousarray(v) for k, v in own.items()}
        return card, arrays, {}

    @classmethod
    def restore(
        cls, card: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], load_encoder: Any
    ) -> Extraction:
        """Rebuild from :meth:`files`.

        Args:
            card: The settings.
            arrays: The arrays.
            load_encoder: Called with an encoder's name where a classifier embeds.

        Raises:
            ArtifactError: Another format, a part is missing, or this machine's encoder is another one.
        """
        if card.get("format") != FORMAT:
            raise ArtifactError(
                f"Got a student of format {card.get('format')!r}, but expected {FORMAT!r}.",
                remedy="Install the version of pilotfish that the card names, or learn again.",
            )
        try:
            made = []
            for number, settings in enumerate(card["fields"]):
                mark = f"{number}."
                own = {k[len(mark) :]: v for k, v in arrays.items() if k.startswith(mark)}
                made.append(restore_field(settings, own, load_encoder))
            return cls(
                tuple(made),
                Vocabulary.of(card["words"], card["shapes"]),
                card["schema"],
                Style(**card["style"]),
                (float(card["confidence"][0]), float(card["confidence"][1])),
                card["asked"],
            )
        except (KeyError, TypeError, IndexError, ValueError) as missing:
            raise ArtifactError(
                f"The student's files lack a part: {missing}.", remedy="Fetch the artifact again."
            ) from missing


@dataclass(frozen=True)
class CrossFitted:
    """A student and its out-of-fold answers.

    Attributes:
        student: Fitted on all answers.
        scores: Out-of-fold scores ``[n]``.
        agreed: Whether the out-of-fold object is the recorded one ``[n]``.
        by_field: Share of the inputs on which each field agreed, by path.
    """

    student: Extraction
    scores: Doubles
    agreed: NDArray[np.bool_]
    by_field: Mapping[Path, float]


def fit_extraction(
    inputs: Inputs,
    objects: Objects,
    *,
    weights: NDArray[np.floating[Any]] | None = None,
    encoder: Encoder | None = None,
    asked: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> CrossFitted:
    """Fit every field and the score of the whole.

    Args:
        inputs: ``n`` inputs.
        objects: What was extracted from them.
        weights: How many inputs each stands for ``[n]``, positive; default all alike.
        encoder: For the classifiers; None lets them read words only.
        asked: The schema that the requests ask for.
        seed: Of the folds.

    Raises:
        InputError: A field cannot be learned; the message says which and why.
    """
    n = len(inputs)
    w = np.ones(n) if weights is None else np.asarray(weights, np.float64)
    vocabulary = Vocabulary.fit([Tokens.of(text) for text in inputs.texts])
    texts = Texts.of(inputs, vocabulary)
    features, bags = vocabulary.features(texts.columns), vocabulary.bags(texts.bags)
    setting = FitField(texts, features, bags, w, folds(inputs.texts, seed), encoder, seed)
    fields: list[FieldStudent] = []
    logs, agreed = np.zeros(n), np.ones(n, bool)
    by_field: dict[Path, float] = {}
    for path in objects.paths:
        keys = objects.keys(path)
        values = [o[path] for o in objects.leaves if path in o]
        one, held = fit_field(path, keys, values, setting)
        right = np.array([best == key for (best, _), key in zip(held, keys, strict=True)], bool)
        fields.append(one)
        logs += np.log(np.maximum([p for _, p in held], SURE))
        agreed &= right
        by_field[path] = float(np.average(right, weights=w))
    confidence = fit_confidence(logs, agreed, w)
    student = Extraction(
        tuple(fields),
        vocabulary,
        objects.schema,
        Style.of(objects.answers),
        confidence,
        asked,
        encoder,
    )
    return CrossFitted(student, scores_of(logs, confidence), agreed, by_field)


def folds(texts: Sequence[str], seed: int) -> NDArray[np.int64]:
    """The fold of each text ``[n]``; equal texts are in the same."""
    number: dict[str, int] = {}
    which = np.array([number.setdefault(text, len(number)) for text in texts], np.int64)
    order = np.random.default_rng(seed).permutation(max(len(number), 1)) % FOLDS
    return np.asarray(order[which], np.int64)


def _log_odds(logs: Doubles) -> Doubles:
    p = np.clip(np.exp(logs), SURE, 1 - SURE)
    return np.asarray(np.log(p) - np.log1p(-p))


def scores_of(logs: Doubles, confidence: tuple[float, float]) -> Doubles:
    """Scores from the sums of the fields' log-probabilities ``[n]``."""
    offset, slope = confidence
    return np.asarray(1.0 / (1.0 + np.exp(-(offset + slope * _log_odds(logs)))))


def fit_confidence(
    logs: Doubles, agreed: NDArray[np.bool_], weights: Doubles
) -> tuple[float, float]:
    """Offset and positive slope by maximum likelihood, with Platt's (1999) softened targets."""
    z = _log_odds(logs)
    right, wrong = float(weights[agreed].sum()), float(weights[~agreed].sum())
    target = np.where(agreed, (right + 1) / (right + 2), 1 / (wrong + 2))

    def loss(at: Doubles) -> float:
        x = at[0] + np.exp(at[1]) * z
        return float(np.average(np.logaddexp(0, x) - target * x, weights=weights))

    found = scipy.optimize.minimize(
        loss, np.zeros(2), method="L-BFGS-B", bounds=[(-20, 20), (-3, 3)]
    )
    return float(found.x[0]), float(np.exp(found.x[1]))
