"""Run steps on Ray: ``python -m tests.curate.ray_run MODULE:NAME CORPUS OUTPUT SHARD_BYTES``.

A process of its own, because Ray leaves threads and child processes to whoever started it. The name is a
list of steps, or a function that makes one. The last line printed is what the run counted.
"""

from __future__ import annotations

import importlib
import os
import sys

import ray

from pilotfish.curate import Pipeline
from tests.curate.runs import counted


def main() -> None:
    where, corpus, output, shard_bytes = sys.argv[1:]
    module, _, name = where.partition(":")
    steps = getattr(importlib.import_module(module), name)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(  # on loopback, with as little memory as it takes
        num_cpus=2,
        object_store_memory=80 << 20,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.2",  # Ray takes 127.0.0.1 for this machine's outer address
    )
    pipeline = Pipeline(steps() if callable(steps) else steps)
    result = pipeline.run(corpus, output, engine="ray", workers=2, shard_bytes=int(shard_bytes))
    print(repr(counted(result)))
    ray.shutdown()


if __name__ == "__main__":
    main()
