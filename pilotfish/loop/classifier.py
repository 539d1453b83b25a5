"""An artifact's student as a text classifier, for whoever needs classes and no answers, such as a router.

Any artifact that holds a student will do, one of an offload included; its certificate and its large
model are left out, since a class probability is all that is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pilotfish.config import Config
from pilotfish.distill.student import Student, load_student
from pilotfish.errors import UnknownName
from pilotfish.infer.predictors.joined import load_joined
from pilotfish.infer.routing import KIND, Routing
from pilotfish.models.load import load_encoder
from pilotfish.models.protocols import Classifier, Floats
from pilotfish.records import Inputs
from pilotfish.store.artifacts import load_artifact


class StudentClassifier:
    """A student that is given texts.

    Args:
        student: Gives class probabilities.
    """

    def __init__(self, student: Student) -> None:
        self.student = student
        self.classes = student.classes

    @classmethod
    def from_spec(cls, rest: str, settings: Mapping[str, Any], config: Config) -> Classifier:
        """Load from ``artifact:FOLDER``; every file is checked against the card first.

        A routing artifact (``pilotfish route fit``) is a classifier by itself.

        Raises:
            ArtifactError: It is no artifact, or holds no student.
            UnknownName: There are settings; it has none.
        """
        for name in settings:
            raise UnknownName("artifact setting", name, ())
        artifact = load_artifact(rest)
        if artifact.card.kind == KIND:
            return Routing.load(artifact, lambda name: load_joined(name, config))
        return cls(load_student(artifact, lambda name: load_encoder(name, config)))

    def predict_proba(self, texts: Sequence[str]) -> Floats:
        """Probabilities ``[n, classes]``."""
        return self.student.predict_proba(Inputs(list(texts)))
