"""Who is asked, in what order, and when to stop: the policies of routing and cascading.

All are one thing, a step from what is known of a request to the next model or to an answer
(:mod:`pilotfish.infer.policies.policy`); each paper is a setting of one of these.
"""

from __future__ import annotations

from pilotfish.registry import Registry

_ROOM = "pilotfish.infer.policies"

POLICIES = Registry(
    "policy",
    {
        "weighted": f"{_ROOM}.weighted:Weighted",
        "chain": f"{_ROOM}.chain:Chain",
        "cascade-routing": f"{_ROOM}.cascade_routing:CascadeRouting",
        "reservation": f"{_ROOM}.reservation:Reservation",
        "verification-pomdp": f"{_ROOM}.verification_pomdp:VerificationPomdp",
        "mixed": f"{_ROOM}.mixed:Mixed",
        "certified": f"{_ROOM}.certified:Certified",
    },
)
