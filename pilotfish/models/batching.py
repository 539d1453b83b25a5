"""Feeding several sessions of one token model at once.

A backend that computes several sequences together says so by :class:`BatchedTokenModel`; a forward pass
reads the weights once for all of them, which on small models and processors is most of its time. Other
token models, composites among them, are fed one session after another.
"""

from __future__ import annotations

from collections.abc import Sequence

from pilotfish.errors import RequestRefused
from pilotfish.models.protocols import BatchedTokenModel, Floats, Session, TokenModel


def feed_all(
    model: TokenModel,
    sessions: Sequence[Session],
    tokens: Sequence[Sequence[int]],
    *,
    last: int | None = None,
) -> list[Floats]:
    """Append to each session its tokens: in one call where the model can, else in turn.

    Args:
        model: Whose the sessions are.
        sessions: Each of them once.
        tokens: For each session what comes next, of any number.
        last: Return the rows of so many tokens at the end of each only.

    Returns:
        For each session its rows ``[n, vocab]``.

    Raises:
        RequestRefused: They do not fit, and no session has changed; or one is given twice.
    """
    distinct(sessions)
    if isinstance(model, BatchedTokenModel):
        return model.feed_all(sessions, tokens, last=last)
    before = [len(session.tokens) for session in sessions]
    try:
        pairs = zip(sessions, tokens, strict=True)
        return [session.feed(new, last=last) for session, new in pairs]
    except BaseException:  # as in one call: all or none
        for session, length in zip(sessions, before, strict=True):
            session.rewind(length)
        raise


def distinct(sessions: Sequence[Session]) -> None:
    """Refuse a session that is given twice.

    Raises:
        RequestRefused: One is.
    """
    if len({id(session) for session in sessions}) != len(sessions):
        raise RequestRefused(
            f"Got a session twice among {len(sessions)}, but expected each of them once.",
            remedy="Fork it: forks share what they have in common.",
        )


def check_rewind(length: int, most: int) -> None:
    """Refuse to rewind a session of ``most`` tokens to ``length``.

    Raises:
        RequestRefused: There are fewer, or it is below 0.
    """
    if not 0 <= length <= most:
        raise RequestRefused(f"Got rewind to {length}, but expected a length in [0, {most}].")
