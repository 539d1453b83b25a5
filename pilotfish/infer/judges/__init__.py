"""How good an answer is, once it is there: the judges of cascades and of cascade routing.

One technique a file. Each is a :class:`pilotfish.models.protocols.Judge` for answers as they come,
and scores recorded answers all at once; :mod:`pilotfish.infer.judges.judge` says what one must
bring.
"""

from __future__ import annotations

from pilotfish.registry import Registry

_ROOM = "pilotfish.infer.judges"

JUDGES = Registry(
    "judge",
    {
        "confidence": f"{_ROOM}.confidence:ConfidenceJudge",
        "self-verification": f"{_ROOM}.verification:SelfVerification",
        "sample-agreement": f"{_ROOM}.sample_agreement:SampleAgreement",
        "model-agreement": f"{_ROOM}.model_agreement:ModelAgreement",
        "learned": f"{_ROOM}.learned:LearnedScorer",
        "pairwise": f"{_ROOM}.pairwise:PairwiseRanker",
    },
)
