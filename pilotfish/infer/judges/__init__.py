"""How good an answer is, once it is there: the judges of cascades and of cascade routing.

One technique a file. Each is a :class:`pilotfish.models.protocols.Judge` for answers as they come,
and scores recorded answers all at once; :mod:`pilotfish.infer.judges.judge` says what one must
bring.
"""

from __future__ import annotations

from pilotfish.registry import Registry

JUDGES = Registry(
    "judge",
    {
        "confidence": "pilotfish.infer.judges.confidence:ConfidenceJudge",
        "self-verification": "pilotfish.infer.judges.verification:SelfVerification",
        "sample-agreement": "pilotfish.infer.judges.sample_agreement:SampleAgreement",
        "model-agreement": "pilotfish.infer.judges.model_agreement:ModelAgreement",
        "learned": "pilotfish.infer.judges.learned:LearnedScorer",
        "pairwise": "pilotfish.infer.judges.pairwise:PairwiseRanker",
    },
)
