"""The whole of monitoring, running for real, shared by the tests of a module."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from tests.integration.monitor.stack import Stack, place, running

from pgrecall.ops.monitor.objectives import Objectives

QUICK = Objectives(
    recall_p95_seconds=0.3,
    failure_ratio=0.2,
    embeddings_age_seconds=4,
    index_recall_ratio=0.6,
    backup_age_seconds=60,
    backup_duration_seconds=30,
    restore_drill_age_seconds=60,
    pool_wait_seconds=0.05,
    pooler_wait_seconds=1,
    connections_ratio=0.4,
    # At 100 MB/s from now on it would be full.
    disk_days_left=shutil.disk_usage(place()).free / 100e6 / 86_400,
    disk_free_ratio=0.000001,
    sample_age_seconds=5,
    window="8s",
    disk_window="6s",
    for_factor=0,
)
"""Objectives that a test can miss and meet again within seconds."""


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Everything, with an agent at work."""
    with running(QUICK) as started:
        yield started
