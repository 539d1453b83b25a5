"""The large model teaches small ones (survey, section 3.2).

A student learns from the large model's answers and serves class probabilities. A student is one
module with a ``fit`` and a ``restore`` function, and one line of :data:`STUDENTS`.
"""

from __future__ import annotations

from pilotfish.registry import Registry

STUDENTS = Registry(
    "student",
    {
        "tfidf-embedding-linear": "pilotfish.distill.linear:TFIDF_EMBEDDING",
        "tfidf-linear": "pilotfish.distill.linear:TFIDF",
        "embedding-linear": "pilotfish.distill.linear:EMBEDDING",
        "knn": "pilotfish.distill.knn:KNN",
        "trees": "pilotfish.distill.trees:TREES",
        "transformer": "pilotfish.distill.transformer:TRANSFORMER",
    },
    extras={"transformer": "torch"},
)
"""Student names to :class:`pilotfish.distill.student.Recipe` objects."""
