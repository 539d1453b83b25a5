"""Who is asked, in what order, and when to stop: the policies of routing and cascading.

All are one thing, a step from what is known of a request to the next model or to an answer
(:mod:`pilotfish.infer.policies.policy`); each paper is a setting of one of these.
"""

from __future__ import annotations

from pilotfish.registry import Registry

POLICIES = Registry(
    "policy",
    {
        "weighted": "pilotfish.infer.policies.weighted:Weighted",
        "chain": "pilotfish.infer.policies.chain:Chain",
        "cascade-routing": "pilotfish.infer.policies.cascade_routing:CascadeRouting",
        "reservation": "pilotfish.infer.policies.reservation:Reservation",
        "verification-pomdp": "pilotfish.infer.policies.verification_pomdp:VerificationPomdp",
        "mixed": "pilotfish.infer.policies.mixed:Mixed",
        "certified": "pilotfish.infer.policies.certified:Certified",
    },
)
