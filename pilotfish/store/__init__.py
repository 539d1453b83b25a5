"""What was asked, answered and decided: one database, SQLite by default, PostgreSQL by URL.

``open_store`` and ``Store`` are imported when they are first used, so that loading an artifact does not
load SQLAlchemy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pilotfish.store.store import Store, open_store

__all__ = ["Store", "open_store"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'pilotfish.store' has no attribute {name!r}")
    from pilotfish.store import store

    return getattr(store, name)
