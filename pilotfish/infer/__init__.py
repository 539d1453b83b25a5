"""Spend the large model only where it pays (survey, section 3.1.3)."""

from __future__ import annotations

from pilotfish.registry import Registry

CONFIDENCES = Registry(
    "confidence",
    {
        "top_probability": "pilotfish.infer.confidence:top_probability",
        "margin": "pilotfish.infer.confidence:margin",
        "singleton": "pilotfish.infer.confidence:singleton",
        "sequence_probability": "pilotfish.infer.confidence:sequence_probability",
        "mean_probability": "pilotfish.infer.confidence:mean_probability",
        "least_probability": "pilotfish.infer.confidence:least_probability",
    },
)
