"""What every part that talks to PostgreSQL shares: connecting, and its failures in our terms."""

from pgrecall.driver.connecting import Commands, Row, Statements, connect
from pgrecall.driver.failures import translate, translate_connect
from pgrecall.driver.sessions import connect_session, is_pooled, require_session

__all__ = [
    "Commands",
    "Row",
    "Statements",
    "connect",
    "connect_session",
    "is_pooled",
    "require_session",
    "translate",
    "translate_connect",
]
