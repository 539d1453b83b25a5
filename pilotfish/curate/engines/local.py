"""One piece after the other, in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pilotfish.curate.formats.pieces import Piece
from pilotfish.curate.tally import PieceTally
from pilotfish.curate.work import Beat, Job, run_piece


def run_local(
    job: Job, pieces: Sequence[Piece], workers: int, beat: Beat
) -> Iterator[tuple[int, PieceTally]]:
    """Work in this process; ``workers`` is not used."""
    for piece in pieces:
        yield piece.number, run_piece(job, piece, beat)
