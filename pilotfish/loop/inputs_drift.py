"""Have the inputs of a task moved away from those that its version learned from?

An alarm says that answers differ; this says whether the inputs do. The vectors of some training inputs
are kept with the artifact, those of the latest requests are made when they are asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pilotfish.config import Config
from pilotfish.errors import ArtifactError
from pilotfish.infer.drift import FEWEST, Drift, two_sample
from pilotfish.models.load import load_encoder
from pilotfish.models.protocols import Encoder
from pilotfish.store.artifacts import load_artifact

LATEST = 500  # inputs of each task that are held
REFERENCE = "reference"


class InputsSeen:
    """The latest inputs of each task, and the test against an artifact's.

    Args:
        encoder: Spec of the encoder that the artifacts were made with.
        config: Where it is looked up.
    """

    def __init__(self, encoder: str, config: Config) -> None:
        self._spec = encoder
        self._config = config
        self._encoder: Encoder | None = None
        self._latest: dict[str, deque[str]] = {}

    def add(self, task: str, texts: Iterable[str]) -> None:
        """Inputs that came in."""
        self._latest.setdefault(task, deque(maxlen=LATEST)).extend(texts)

    def test(self, task: str, artifact: str) -> Drift | None:
        """The two-sample test of the latest inputs; None when there are too few, or no reference.

        Args:
            task: Its name.
            artifact: Folder of the version.
        """
        latest = list(self._latest.get(task, ()))
        if len(latest) < FEWEST:
            return None
        try:
            before = load_artifact(Path(artifact)).tensors(REFERENCE)["vectors"]
        except (ArtifactError, KeyError):
            return None
        if len(before) < FEWEST:
            return None
        if self._encoder is None:
            self._encoder = load_encoder(self._spec, self._config)
        return two_sample(before.astype(np.float32), self._encoder.encode(latest))
