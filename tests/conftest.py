"""What all tests share, on top of the fixtures that users get from ``pgrecall.testing``."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import psycopg
import pytest
from tests.pgbouncer import pooled_template

from pgrecall import AsyncMemory, Memory
from pgrecall.embedding.base import Embedder

if TYPE_CHECKING:  # pytest must be the first to import its plugin
    from pgrecall.testing import Database, Template

pytest_plugins = ["pgrecall.testing"]

EVAL_DATA = os.environ.get("PGRECALL_EVAL_DATA")
POOLED = os.environ.get("PGRECALL_TEST_POOLER", "") not in ("", "0")
"""Whether the clients' connections lead through a PgBouncer; the owner's stay direct."""

# What has no client, has a pooler of its own, or must go past one: it would only run twice or be
# refused.
NOT_POOLED = (
    "integration/backup/",
    "integration/bursts/test_crash",
    "integration/cli/",
    "integration/congruence/",
    "integration/embedding/",
    "integration/mcp/",
    "integration/serving/",
    "integration/inspection/test_doctor",
    "integration/inspection/test_sizing",
    "integration/inspection/test_verify_everything",
    "integration/replica/",
    "integration/test_engine_",
    "integration/provision/",
    "integration/pitr/",
    "integration/pooler/",
    "integration/monitor/test_alerts_live",
    "integration/monitor/test_dashboards_live",
)


def pytest_report_header() -> str | None:
    if not POOLED:
        return None
    left_out = ", ".join(f"tests/{name}*" for name in NOT_POOLED)
    return f"clients through PgBouncer; left out, since it changes nothing for them: {left_out}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if POOLED:
        without = [item for item in items if any(name in item.nodeid for name in NOT_POOLED)]
        config.hook.pytest_deselected(items=without)
        items[:] = [item for item in items if item not in without]
    for item in items:
        if item.get_closest_marker("eval_data") and not EVAL_DATA:
            item.add_marker(
                pytest.mark.skip(reason="reads real data: set PGRECALL_EVAL_DATA to its directory")
            )
        if item.get_closest_marker("root") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture(autouse=True, scope="session")
def own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests away from the memory and the settings of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [*os.environ]:
            if name.startswith("PGRECALL_") and name not in (
                "PGRECALL_EVAL_DATA",
                "PGRECALL_TEST_ADMIN_DSN",
                "PGRECALL_TEST_CHAOS",
            ):
                patch.delenv(name)
        patch.delenv("COLUMNS", raising=False)  # parallel runs of tests set it
        patch.delenv("COLUMNS", raising=False)  # pytest-xdist sets it; tables would be narrow
        patch.setenv("PGRECALL_CONFIG_DIR", str(tmp_path_factory.mktemp("config")))
        patch.setenv("PGRECALL_DATA_DIR", str(tmp_path_factory.mktemp("data") / "server"))
        yield


@pytest.fixture(scope="session")
def eval_data() -> Path:
    """Directory of the real data; tests that use it carry the marker ``eval_data``."""
    if not EVAL_DATA:
        raise RuntimeError("mark this test with pytest.mark.eval_data")
    return Path(EVAL_DATA)


@pytest.fixture(scope="session")
def pgrecall_template(pgrecall_template: Template) -> Iterator[Template]:
    """The template of the tests' databases; its copies are behind a pooler if asked for."""
    if not POOLED:
        yield pgrecall_template
        return
    with pooled_template(pgrecall_template) as template:
        yield template


@pytest.fixture(scope="session")
def admin_dsn(pgrecall_admin_dsn: str) -> str:
    """Superuser connection string of a real server."""
    return pgrecall_admin_dsn


@pytest.fixture(scope="module")
def schema_dsn(pgrecall_template: Template) -> Iterator[str]:
    """Superuser connection string of a provisioned database that a module shares."""
    with pgrecall_template.clone() as database:
        yield database.admin_dsn


@pytest.fixture
def admin(pgrecall_database: Database) -> Iterator[psycopg.Connection[Any]]:
    """A superuser's connection into the test's database."""
    with psycopg.connect(pgrecall_database.admin_dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
async def async_memory(
    pgrecall_database: Database, pgrecall_embedder: Embedder
) -> AsyncIterator[AsyncMemory]:
    """An open, empty memory for coroutines."""
    async with await AsyncMemory.open(
        pgrecall_database.dsn, embedder=pgrecall_embedder, settings=pgrecall_database.settings
    ) as memory:
        yield memory


class MakeEpisode(Protocol):
    """Makes the values of an episode; what is given replaces the usual ones."""

    def __call__(self, **values: Any) -> dict[str, Any]: ...


@pytest.fixture(scope="session")
def make_episode() -> MakeEpisode:
    def make(**values: Any) -> dict[str, Any]:
        return {
            "project_id": "apollo",
            "agent_version": "1.4.0",
            "perception": {"backlog_tasks": 12, "velocity_trend": "declining"},
            "reasoning": {"decision": "create_sprint"},
            "action": {"sprint_created": True},
            **values,
        }

    return make


@pytest.fixture
def memory(pgrecall_memory: Memory) -> Memory:
    """An open, empty memory."""
    return pgrecall_memory
