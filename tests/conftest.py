"""What all tests share. Fixtures for users' own tests live in ``pgrecall.testing``."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def admin_dsn() -> str:
    """Superuser connection string of a real server."""
    return os.environ["PGRECALL_TEST_ADMIN_DSN"]
