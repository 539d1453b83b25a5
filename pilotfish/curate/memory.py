"""Arrow's memory from the system's allocator, for as long as a run lasts.

Arrow's own default (mimalloc) keeps much of what was freed: 25 MB more at the peak of the rule filters,
at the same speed. Where Arrow was imported after :mod:`pilotfish.curate`, all of it allocates so already;
else this changes what Python allocates through Arrow, but not what Arrow's reader of Parquet does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa


def use_system_memory() -> pa.MemoryPool:
    """Let Arrow allocate from the system in this process, unless ``ARROW_DEFAULT_MEMORY_POOL`` is set.

    Returns:
        The pool until now.
    """
    before = pa.default_memory_pool()
    if "ARROW_DEFAULT_MEMORY_POOL" not in os.environ:
        pa.set_memory_pool(pa.system_memory_pool())
    return before


@contextmanager
def system_memory() -> Iterator[None]:
    """:func:`use_system_memory`, and the pool until then at the end."""
    before = use_system_memory()
    try:
        yield
    finally:
        pa.set_memory_pool(before)
