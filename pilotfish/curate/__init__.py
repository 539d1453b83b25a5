"""Small models choose the data (survey, section 3.1.1).

A step is one module and one line of :data:`STEPS`; :mod:`pilotfish.curate.step` says what it must bring,
and :class:`~pilotfish.curate.pipeline.Pipeline` runs a list of them on files.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

from pilotfish.registry import Registry

if TYPE_CHECKING:
    from pilotfish.curate.pipeline import Pipeline
    from pilotfish.curate.step import FittedStep, Step, Verdict

# Arrow's own allocator keeps 25 MB of what was freed. It reads this when it is first imported; where that
# was before, pilotfish.curate.memory does what it can.
if "pyarrow" not in sys.modules:
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

__all__ = ["STEPS", "FittedStep", "Pipeline", "Step", "Verdict"]

STEPS = Registry(
    "curation step",
    {
        "buckets": "pilotfish.curate.scores.buckets:Buckets",
        "c4": "pilotfish.curate.rules.c4:C4",
        "ccnet": "pilotfish.curate.rules.ccnet:CCNet",
        "dsir": "pilotfish.curate.selection.dsir:DSIR",
        "exact": "pilotfish.curate.dedup.exact:Exact",
        "fineweb": "pilotfish.curate.rules.fineweb:FineWeb",
        "gopher_quality": "pilotfish.curate.rules.gopher_quality:GopherQuality",
        "gopher_repetition": "pilotfish.curate.rules.gopher_repetition:GopherRepetition",
        "grade": "pilotfish.curate.scores.grade:Grade",
        "language": "pilotfish.curate.scores.language:Language",
        "length": "pilotfish.curate.scores.length:Length",
        "minhash": "pilotfish.curate.dedup.minhash:MinHash",
        "model_perplexity": "pilotfish.curate.scores.model_perplexity:ModelPerplexity",
        "mods": "pilotfish.curate.selection.mods:MoDS",
        "perplexity": "pilotfish.curate.scores.perplexity:Perplexity",
        "personal_data": "pilotfish.curate.personal.data:PersonalData",
        "pseudonyms": "pilotfish.curate.personal.pseudonyms:Pseudonyms",
        "quality": "pilotfish.curate.scores.quality:Quality",
        "representative": "pilotfish.curate.selection.representative:Representative",
        "semantic": "pilotfish.curate.dedup.semantic:Semantic",
        "toxicity": "pilotfish.curate.scores.toxicity:Toxicity",
    },
    extras={"language": "curate"},
)

_LATE = {
    "Pipeline": "pilotfish.curate.pipeline",
    "Step": "pilotfish.curate.step",
    "FittedStep": "pilotfish.curate.step",
    "Verdict": "pilotfish.curate.step",
}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module 'pilotfish.curate' has no attribute {name!r}")
    return getattr(importlib.import_module(_LATE[name]), name)
