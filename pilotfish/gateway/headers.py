"""The headers of every answer: who really answered, why, how sure, at what cost, and what that saved."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pilotfish.gateway.refusals import Refusal
from pilotfish.records import Decision

if TYPE_CHECKING:
    from pilotfish.gateway.answer import Turn


@functools.lru_cache(maxsize=4096)
def header_value(text: str) -> bytes:
    r"""A text as a header may carry it: visible ASCII, all else escaped.

    >>> header_value("café\n")
    b'caf\\xe9\\x0a'
    """
    return b"".join(c.encode() if " " <= c <= "~" else f"\\x{ord(c):02x}".encode() for c in text)


def telling(decisions: Sequence[Decision]) -> Decision:
    """The outermost decision that says why: of an escalated answer, what the refused one scored."""
    last = decisions[-1]
    if last.reason != "last":
        return last
    return next((d for d in reversed(decisions[:-1]) if d.by == last.by), last)


def answer_headers(turn: Turn, refusal: Refusal | None = None) -> list[tuple[bytes, bytes]]:
    """Headers of an answer or a refusal.

    ``x-request-id`` always; ``x-pilotfish-model`` (who answered; on errors, who was asked) and
    ``x-pilotfish-reason`` (the outermost decision's, or the error's code) where they are known;
    ``x-pilotfish-score``; ``x-pilotfish-cost`` and ``x-pilotfish-saving`` in US dollars, absent when
    unknown. A stream's headers go out with its first piece: its cost and saving are not known then, and
    are in the record.
    """
    head = [(b"x-request-id", turn.id.encode())]
    completion = turn.completion
    if refusal is not None:
        head.append((b"x-pilotfish-reason", header_value(refusal.code)))
        if turn.asked:
            head.append((b"x-pilotfish-model", header_value(turn.asked)))
        if refusal.retry_after is not None:
            head.append((b"retry-after", b"%d" % max(1, round(refusal.retry_after))))
        if refusal.status == 401:
            head.append((b"www-authenticate", b"Bearer"))
    elif completion is not None:
        head += _who_and_why(completion.model, completion.decisions)
        if completion.cost is not None:
            head.append((b"x-pilotfish-cost", b"%.9g" % completion.cost))
            if turn.baseline is not None:
                head.append((b"x-pilotfish-saving", b"%.9g" % (turn.baseline - completion.cost)))
    elif turn.first is not None:
        head += _who_and_why(turn.first.model, turn.first.decisions)
    return head


def _who_and_why(model: str, decisions: Sequence[Decision]) -> list[tuple[bytes, bytes]]:
    head = [(b"x-pilotfish-model", header_value(model))] if model else []
    if not decisions:
        return [*head, (b"x-pilotfish-reason", b"asked")]
    last = telling(decisions)
    head.append((b"x-pilotfish-reason", header_value(last.reason)))
    if last.score is not None:
        head.append((b"x-pilotfish-score", b"%.6g" % last.score))
    return head
