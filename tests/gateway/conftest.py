"""The PostgreSQL server of the store's tests, for gateways that share one."""

from tests.store.conftest import postgres

__all__ = ["postgres"]
