"""A Ray cluster, by Ray Data: a data set of pieces, mapped by actors that keep the steps loaded.

Started inside a cluster it uses that, else it starts Ray on this machine. The work folder and a local
output folder must be on storage that all nodes share.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from pilotfish.curate.formats.pieces import Piece
from pilotfish.curate.memory import use_system_memory
from pilotfish.curate.tally import PieceTally
from pilotfish.curate.work import Beat, Job, run_piece
from pilotfish.errors import MissingExtra


def run_ray(
    job: Job, pieces: Sequence[Piece], workers: int, beat: Beat
) -> Iterator[tuple[int, PieceTally]]:
    """Work in at most ``workers`` actors; progress moves when a piece ends.

    Raises:
        MissingExtra: Ray is not installed.
    """
    try:
        import ray
        import ray.data
    except ModuleNotFoundError:
        raise MissingExtra("The engine 'ray'", "scale") from None
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
        ray.init(log_to_driver=False, include_dashboard=False, configure_logging=False)
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # progress is shown by our own
    ray.data.DataContext.get_current().enable_progress_bars = False
    worker: Any = _Worker
    encoded = [{"piece": msgspec.json.encode(piece)} for piece in pieces]
    data = ray.data.from_items(encoded, override_num_blocks=len(encoded)).map(
        worker,
        fn_constructor_args=(job,),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, workers)),
    )
    for row in data.iter_rows():
        tally = msgspec.json.decode(row["tally"], type=PieceTally)
        beat(tally.bytes_read, tally.rows_read)
        yield row["number"], tally


class _Worker:
    """An actor: one piece at a time."""

    def __init__(self, job: Job) -> None:
        self._job = job
        use_system_memory()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        piece = msgspec.json.decode(row["piece"], type=Piece)
        tally = run_piece(self._job, piece, lambda size, rows: None)
        return {"number": piece.number, "tally": msgspec.json.encode(tally)}
