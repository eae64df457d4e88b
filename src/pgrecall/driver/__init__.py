"""What every part that talks to PostgreSQL shares: connecting, and its failures in our terms."""

from pgrecall.driver.connecting import Row, Statements, connect
from pgrecall.driver.failures import translate, translate_connect

__all__ = ["Row", "Statements", "connect", "translate", "translate_connect"]
