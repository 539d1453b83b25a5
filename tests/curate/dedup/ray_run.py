"""Run :data:`STEPS` on Ray: ``python -m tests.curate.dedup.ray_run CORPUS OUTPUT``.

A process of its own, because Ray leaves threads and child processes to whoever started it.
"""

from __future__ import annotations

import os
import sys

import ray

from pilotfish.curate import Pipeline
from tests.curate.dedup.test_pipeline import SHARD, STEPS


def main() -> None:
    corpus, output = sys.argv[1:]
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(  # on loopback, with as little memory as it takes
        num_cpus=2,
        object_store_memory=80 << 20,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.2",  # Ray takes 127.0.0.1 for this machine's outer address
    )
    Pipeline(STEPS).run(corpus, output, engine="ray", workers=2, shard_bytes=SHARD)
    ray.shutdown()


if __name__ == "__main__":
    main()
