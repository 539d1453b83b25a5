"""Worker processes on this machine, one piece each at a time.

Workers are started afresh (not forked), because a fork of a process with Arrow's threads may hang. One
that loses its parent ends by itself, so a killed run leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for
from multiprocessing.reduction import ForkingPickler
from typing import Any

from pilotfish.curate.engines.local import run_local
from pilotfish.curate.formats.pieces import Piece
from pilotfish.curate.memory import use_system_memory
from pilotfish.curate.tally import PieceTally
from pilotfish.curate.work import Beat, Job, run_piece
from pilotfish.errors import ConfigError, InputError

LOOK_SECONDS = 0.25  # how often progress is looked at
AHEAD = 2  # pieces a worker that are handed out before they are needed

BYTES, ROWS, STOP = range(3)  # of the shared numbers: done by all workers; stop is 0 or 1

_job: Job
_progress: Any


class _Stopped(Exception):
    """The run has ended; what this worker is at will be done again."""


def run_processes(
    job: Job, pieces: Sequence[Piece], workers: int, beat: Beat
) -> Iterator[tuple[int, PieceTally]]:
    """Work in ``workers`` processes; in this one where one is enough.

    Raises:
        InputError: A worker was killed, most likely for want of memory.
        ConfigError: A step cannot be sent to other processes.
    """
    if workers == 1:
        yield from run_local(job, pieces, workers, beat)
        return
    _sendable(job)
    context = multiprocessing.get_context("spawn")
    progress: Any = context.Array("q", 3)
    seen = [0, 0]

    def look() -> None:
        with _uninterrupted():
            now = progress[:STOP]
        beat(now[0] - seen[0], now[1] - seen[1])
        seen[:] = now

    pool = ProcessPoolExecutor(workers, context, _begin, (job, progress))
    waiting = iter(pieces)
    under_way: set[Future[tuple[int, PieceTally]]] = set()
    try:
        while True:
            with _uninterrupted():
                while (
                    len(under_way) < AHEAD * workers and (piece := next(waiting, None)) is not None
                ):
                    under_way.add(pool.submit(_work, piece))
                if not under_way:
                    break
                ended, under_way = wait(under_way, LOOK_SECONDS, FIRST_COMPLETED)
            look()
            for future in ended:
                yield future.result()
        look()
    except BrokenProcessPool as error:
        raise InputError(
            "A worker process was killed, most likely because memory ran out.",
            remedy="Use fewer --workers, and run the same command again: what is finished is kept. "
            'A script of your own must run pipelines under if __name__ == "__main__": alone.',
        ) from error
    finally:
        with _uninterrupted():
            progress[STOP] = 1  # those who are still at work end with the batch they are at
        pool.shutdown(cancel_futures=True)


def _sendable(job: Job) -> None:
    try:
        ForkingPickler.dumps(job)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"A step cannot be sent to worker processes: {error}.",
            remedy='Define its class at the top of a module, or use the engine "local".',
        ) from error


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until the end of the block, and from processes that start in it for good.

    A terminal sends it to all processes; the parent decides, and one that is still importing would die
    with a traceback. Nor are the locks shared with them, and the pool's own, made to be left half way.
    """
    held: list[Any] = []
    main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, lambda *got: held.append(got)) if main else None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # processes take this over
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if main:
            signal.signal(signal.SIGINT, handler)
    if held:
        signal.raise_signal(signal.SIGINT)


def _begin(job: Job, progress: Any) -> None:
    global _job, _progress
    _job, _progress = job, progress
    import pyarrow as pa

    pa.set_cpu_count(1)  # the processes are the parallelism
    use_system_memory()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait_for([sentinel])
    os._exit(1)


def _work(piece: Piece) -> tuple[int, PieceTally]:
    def beat(size: int, rows: int) -> None:
        with _progress.get_lock():
            if _progress[STOP]:
                raise _Stopped
            _progress[BYTES] += size
            _progress[ROWS] += rows

    return piece.number, run_piece(_job, piece, beat)
