"""Where the pieces of a run are worked on: here, in worker processes, or on a Ray cluster.

An engine is a function ``(job, pieces, workers, beat) -> iterator of (piece number, tally)``, in the
order in which pieces end. All of them run :func:`pilotfish.curate.work.run_piece`, so their results are
the same.
"""

from __future__ import annotations

from pilotfish.registry import Registry

ENGINES = Registry(
    "engine",
    {
        "local": "pilotfish.curate.engines.local:run_local",
        "processes": "pilotfish.curate.engines.processes:run_processes",
        "ray": "pilotfish.curate.engines.ray_data:run_ray",
    },
    extras={"ray": "scale"},
)
