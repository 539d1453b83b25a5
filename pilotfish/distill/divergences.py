"""How far a student's distribution is from its teacher's, one formula each.

Every function takes logits of both, ``[n, vocab]``, all finite, and returns ``[n]`` values of at least 0,
in nats but for the total variation; all are 0 for equal distributions, and all have gradients.

==========================  ===============================================================
forward KL                  mean-seeking: covers all that the teacher may say
reverse KL                  mode-seeking (MiniLLM, Gu et al. 2024)
generalised Jensen-Shannon  between the two (GKD, Agarwal et al. 2024)
skew forward, reverse KL    the same towards a mixture, with bounded gradients
                            (DistiLLM, Ko et al. 2024)
total variation             1 - the share of a draft's guesses that hold (Leviathan et al.
                            2023; DistillSpec, Zhou et al. 2024)
==========================  ===============================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from pilotfish.errors import ConfigError, UnknownName

Divergence = Callable[[Any, Any], Any]


def forward_kl(teacher: Any, student: Any) -> Any:
    """``KL(p || q)`` of teacher ``p`` and student ``q``."""
    return _kl(teacher.log_softmax(-1), student.log_softmax(-1))


def reverse_kl(teacher: Any, student: Any) -> Any:
    """``KL(q || p)`` of teacher ``p`` and student ``q``."""
    return _kl(student.log_softmax(-1), teacher.log_softmax(-1))


def jensen_shannon(teacher: Any, student: Any, share: float = 0.5) -> Any:
    """``share KL(p || m) + (1 - share) KL(q || m)`` with ``m = share p + (1 - share) q``.

    Args:
        teacher: Logits of ``p``.
        student: Logits of ``q``.
        share: Agarwal et al.'s beta, in (0, 1); divided by it, the result nears the forward KL at 0, and
            divided by ``1 - share`` the reverse KL at 1.

    Raises:
        ConfigError: The share is out of its range.
    """
    p, q = teacher.log_softmax(-1), student.log_softmax(-1)
    middle = _mixture(p, q, share)
    return share * _kl(p, middle) + (1 - share) * _kl(q, middle)


def skew_forward_kl(teacher: Any, student: Any, skew: float = 0.1) -> Any:
    """``KL(p || skew p + (1 - skew) q)``; Ko et al. use 0.1.

    Raises:
        ConfigError: The skew is not in (0, 1).
    """
    p, q = teacher.log_softmax(-1), student.log_softmax(-1)
    return _kl(p, _mixture(p, q, skew))


def skew_reverse_kl(teacher: Any, student: Any, skew: float = 0.1) -> Any:
    """``KL(q || (1 - skew) p + skew q)``.

    Raises:
        ConfigError: The skew is not in (0, 1).
    """
    p, q = teacher.log_softmax(-1), student.log_softmax(-1)
    return _kl(q, _mixture(q, p, skew))


def total_variation(teacher: Any, student: Any) -> Any:
    """``sum |p - q| / 2``, in [0, 1]."""
    return (teacher.softmax(-1) - student.softmax(-1)).abs().sum(-1) / 2


DIVERGENCES: Mapping[str, Divergence] = {
    "forward-kl": forward_kl,
    "reverse-kl": reverse_kl,
    "jensen-shannon": jensen_shannon,
    "skew-forward-kl": skew_forward_kl,
    "skew-reverse-kl": skew_reverse_kl,
    "total-variation": total_variation,
}
"""By the name that an option gives them, with the papers' constants."""


def find_divergence(name: str) -> Divergence:
    """The divergence of a name.

    Raises:
        UnknownName: There is none of it.
    """
    if name not in DIVERGENCES:
        raise UnknownName("divergence", name, DIVERGENCES)
    return DIVERGENCES[name]


def _kl(p: Any, q: Any) -> Any:
    """Of log-probabilities."""
    return (p.exp() * (p - q)).sum(-1)


def _mixture(p: Any, q: Any, share: float) -> Any:
    """Log-probabilities of ``share p + (1 - share) q`` from those of both."""
    if not 0 < share < 1:
        raise ConfigError(f"Got a share of {share:g}, but expected one in (0, 1).")
    return torch.logaddexp(p + math.log(share), q + math.log1p(-share))
