"""The embedded PostgreSQL: finding its binaries, starting it, stopping it.

``EmbeddedServer`` is the only door; the other modules are its rooms.
"""

from pgrecall.engine.server import EmbeddedServer, ServerInfo, ServerStatus

__all__ = ["EmbeddedServer", "ServerInfo", "ServerStatus"]
