"""PgBouncer in front of the memory: its configuration, and the role with which it asks for users.

``docs/how-to/run-behind-a-pooler.md`` says how it is used.
"""

from pgrecall.ops.pooler.configure import PoolerReport, configure
from pgrecall.ops.pooler.request import PoolerRequest

__all__ = ["PoolerReport", "PoolerRequest", "configure"]
