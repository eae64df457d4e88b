"""What every part that talks to PostgreSQL shares: its failures in our terms."""

from pgrecall.driver.failures import translate

__all__ = ["translate"]
