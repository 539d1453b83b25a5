"""What a question is tagged with: its words, the clusters it falls into, or what a model calls it.

TagRouter (Chen et al. 2025) lets a large model write tags, normalises them (rare ones go, those that
mean the same become one) and distils a tagger from it. Here a tag is one of

- ``words``: a word of the question that is neither rare nor common; costs nothing;
- ``clusters``: the nearest of 8, of 32 and of 128 centres of the recorded questions' embeddings, a broad,
  a middle and a narrow subject;
- ``model``: what a model answers when it is asked for tags, each question once; it is asked for
  every new question as well, so a decision costs its call.
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Literal

import numpy as np

from pilotfish.errors import ModelError
from pilotfish.infer.outcomes import Floats
from pilotfish.infer.predictors.features import embed
from pilotfish.infer.predictors.fitted import unit_rows
from pilotfish.models.calls import complete_many, wait
from pilotfish.models.protocols import Encoder, Model
from pilotfish.records import Completion, Request

Source = Literal["words", "clusters", "words+clusters", "model"]

GRAINS = (8, 32, 128)
"""Clusters of each kind: MMLU has 57 subjects in 4 fields."""

MAX_CHARS = 20_000
PROMPT = (
    "Give at most five short tags for the request below: its subject, its task, and the skills that "
    "it needs. Answer with the tags alone, in English, separated by commas.\n\nRequest: {text}\n\nTags:"
)
PROMPT_CHARS = 4_000
MAX_TAGS = 8  # of one question; a model that does not stop is cut off
MAX_WORDS = 4
REMEMBERED = 50_000  # questions whose tags are kept, about 10 MB
ALIKE = 0.85  # cosine; tags of MMLU's subjects that mean the same are above, others below

_WORD = re.compile(r"[^\W\d_]{3,}|\d+")
_SEPARATOR = re.compile(r"[,;\n|]+")
_NUMBERED = re.compile(r"^\s*(?:[-*#\u2022]|\d+[.)])\s*")


def words_of(text: str) -> list[str]:
    """The different words of a text, in lower case; every number is the tag ``0``."""
    words = _WORD.findall(text[:MAX_CHARS].lower())
    return list(dict.fromkeys("0" if word[0].isdigit() else word for word in words))


def parse_tags(answer: str) -> list[str]:
    """The tags in a model's answer: lower case, no marks or numbering, at most 8 of at most 4 words."""
    found = []
    for part in _SEPARATOR.split(answer):
        tag = " ".join(_NUMBERED.sub("", part).strip(" \t\"'`.:#()[]").lower().split())
        if tag and len(tag.split()) <= MAX_WORDS:
            found.append(tag.removeprefix("tags: "))
    return list(dict.fromkeys(found))[:MAX_TAGS]


class ModelTagger:
    """Asks a model for tags, each text once.

    Args:
        model: Writes them; give one with a store to keep them over restarts.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._known: OrderedDict[str, list[str]] = OrderedDict()

    def tags(self, texts: Sequence[str], *, strict: bool = False) -> list[list[str]]:
        """The tags of each text; none where the model could not be asked.

        Args:
            texts: Their first 4,000 characters are shown.
            strict: Raise where the model could not be asked.

        Raises:
            ModelError: The model could not be asked, and ``strict``.
        """
        cut = [text[:PROMPT_CHARS] for text in texts]
        found = {text: self._known[text] for text in cut if text in self._known}
        new = [text for text in dict.fromkeys(cut) if text not in found]
        if new:
            for text, said in zip(new, wait(self._ask(new)), strict=True):
                if isinstance(said, ModelError):
                    if strict:
                        raise said
                    found[text] = []
                    continue
                found[text] = self._known[text] = parse_tags(said.text)
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return [found[text] for text in cut]

    async def _ask(self, texts: Sequence[str]) -> list[Completion | ModelError]:
        asked = [
            Request.of(PROMPT.format(text=text), temperature=0.0, max_tokens=60) for text in texts
        ]
        said: dict[int, Completion | ModelError] = {}
        async for at, answer in complete_many(self.model, asked):
            said[at] = answer
        return [said[at] for at in range(len(texts))]


def merge_alike(tags: Sequence[Sequence[str]], encoder: Encoder) -> dict[str, str]:
    """For each tag the most frequent tag that means the same (cosine of 0.85 and more), or itself."""
    count = Counter(tag for own in tags for tag in own)
    ordered = sorted(count, key=lambda tag: (-count[tag], tag))
    rows = unit_rows(embed(encoder, ordered))
    known = np.linalg.norm(rows, axis=1) > 0.5
    heads: list[int] = []
    merged: dict[str, str] = {}
    for i, tag in enumerate(ordered):
        alike = rows[heads] @ rows[i] if heads and known[i] else np.zeros(1)
        best = int(alike.argmax())
        if known[i] and heads and alike[best] >= ALIKE:
            merged[tag] = ordered[heads[best]]
        else:
            merged[tag] = tag
            heads.append(i)
    return merged


def cluster_centres(rows: Floats, seed: int) -> list[Floats]:
    """Centres of k-means with each number of clusters in :data:`GRAINS`, ``[k, dim]`` each."""
    from sklearn.cluster import KMeans

    distinct = len(np.unique(rows, axis=0))
    return [
        KMeans(min(grain, distinct), n_init=1, random_state=seed)
        .fit(rows)
        .cluster_centers_.astype(np.float32)
        for grain in GRAINS
    ]


def nearest_centres(rows: Floats, centres: Sequence[Floats]) -> list[list[str]]:
    """For each row the nearest centre of each kind, as tags such as ``32/7``."""
    names: list[list[str]] = [[] for _ in range(len(rows))]
    for grain, points in zip(GRAINS, centres, strict=True):
        near = ((points**2).sum(axis=1) - 2 * (rows @ points.T)).argmin(axis=1)
        for own, at in zip(names, near.tolist(), strict=True):
            own.append(f"{grain}/{at}")
    return names
