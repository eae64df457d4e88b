"""The tests of LangGraph's authors for stores, with ours in the places of theirs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote
from xml.etree import ElementTree as ET

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from tests.conformance.listed import REFERENCE, left_out
from tests.conformance.suites import source_of

from pgrecall.config import load_settings
from pgrecall.engine import EmbeddedServer
from pgrecall.ops.provision import init

HERE = Path(__file__).parent / "langgraph"
PAGE = REFERENCE / "conformance-langgraph.md"
LONG = bool(os.environ.get("PGRECALL_CONFORMANCE_EXAMPLES"))
"""Whether to run what for us is the same test again, through other ways to connect."""
VIEW = """
    CREATE VIEW public.store AS
    SELECT array_to_string(namespace, '.') AS prefix, key, value, created_at, updated_at, expires_at
      FROM pgrecall.items
"""


@pytest.fixture(scope="module")
def uri() -> Iterator[str]:
    """Address of a server each of whose new databases is provisioned."""
    with TemporaryDirectory(prefix="pgrecall-") as directory:
        Path(directory).chmod(0o755)  # the server may run as another user
        server = EmbeddedServer(Path(directory) / "server")
        server.start()
        try:
            settings = load_settings(config_dir=Path(directory) / "config", database="suite")
            init(server.admin_dsn(), database="suite", dimensions=8, settings=settings)
            at = conninfo_to_dict(server.admin_dsn())
            address = (f"postgresql://{at['user']}:{quote(str(at['password']))}@{at['host']}:"
                       f"{at['port']}")  # fmt: skip
            with psycopg.connect(f"{address}/suite", autocommit=True) as owner:
                owner.execute(VIEW.encode())
            with psycopg.connect(f"{address}/postgres", autocommit=True) as admin:
                admin.execute("ALTER DATABASE template1 IS_TEMPLATE false")
                admin.execute("DROP DATABASE template1")
                admin.execute("CREATE DATABASE template1 TEMPLATE suite IS_TEMPLATE true")
            yield f"{address}/suite?sslmode=disable"
        finally:
            server.destroy(force=True)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("project", "files", "names"),
    [
        (
            "langgraph-checkpoint-postgres",
            ["tests/test_store.py", "tests/test_async_store.py"],
            "" if LONG else "not pipe and not pool and not halfvec",
        ),
        ("langgraph-checkpoint", ["tests/test_store.py"], ""),
        (
            "langgraph",
            ["tests/test_pregel.py", "tests/test_pregel_async.py", "tests/test_runtime.py"],
            "store or injectable",
        ),
    ],
)
def test_the_suite_of_stores(
    uri: str, project: str, files: list[str], names: str, tmp_path: Path
) -> None:
    page = PAGE.read_text()
    section = page.split(f"## {project}\n", 1)[1].split("\n## ", 1)[0]
    report = tmp_path / "report.xml"
    # Not this directory's parents: the suite has a package named tests as well.
    root = str(Path(__file__).parents[2])
    ours = [place for place in sys.path if place and place != root]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "stand_ins", "-p", "no:cacheprovider",
         "-n", "4" if project.endswith("postgres") else "0", f"--junit-xml={report}", *files,
         *(f"--deselect={name}" for name in left_out(section)),
         "-k", names],
        cwd=source_of(project),
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *ours]),
             "PGRECALL_SUITE_URI": uri, "NO_DOCKER": "true"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    told = (done.stdout + done.stderr)[-6000:]
    assert done.returncode == 0, told
    (suite,) = ET.parse(report).getroot().iter("testsuite")
    assert suite.attrib["skipped"] == "0", told
    passed = re.findall(r"(\d+) (?:pass|of them)", section)
    assert suite.attrib["tests"] == passed[0 if LONG or len(passed) == 1 else 1], told[-300:]
