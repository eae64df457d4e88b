"""The TypeScript client: generated anew, compiled, and run by Node against a server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.serving.rest.conftest import Rest

ROOT = Path(__file__).resolve().parents[4]
CLIENT = ROOT / "clients" / "typescript"
GUIDE = ROOT / "docs" / "how-to" / "use-from-typescript.md"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a built copy, whose schema is generated from this checkout's document."""
    if shutil.which("npm") is None:
        pytest.fail("there is no npm; on Debian: tools/system_packages.sh npm")
    clients = tmp_path_factory.mktemp("typescript") / "clients"
    copy = clients / "typescript"
    shutil.copytree(CLIENT, copy, ignore=shutil.ignore_patterns("node_modules", "dist"))
    reference = clients.parent / "docs" / "reference"
    reference.mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "reference" / "openapi.json", reference)
    blocks = re.findall(r"^```ts\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    quickstart = "\n".join(blocks)
    (copy / "test" / "quickstart.ts").write_text(quickstart + "\nexport {};\n")
    run("npm", "ci", "--silent", "--prefer-offline", cwd=copy)
    run("npm", "run", "--silent", "generate", cwd=copy)
    run("npm", "run", "--silent", "build", cwd=copy)
    return copy


def run(*command: str, cwd: Path, **environment: str) -> str:
    """Run a command, and return what it prints."""
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


def test_the_schema_in_the_repository_is_that_of_the_document(package: Path) -> None:
    made = (package / "src" / "schema.ts").read_text()
    kept = (CLIENT / "src" / "schema.ts").read_text()
    assert made == kept, "make it anew: npm run generate in clients/typescript"


def test_its_own_tests_pass(package: Path, rest: Rest) -> None:
    told = run("node", "--test", "--test-reporter=tap", "dist/test/memory.test.js", cwd=package,
               **surroundings(rest))  # fmt: skip
    assert re.search(r"^# pass 6$", told, re.MULTILINE), told
    assert re.search(r"^# skipped 0$", told, re.MULTILINE), told


def test_the_quickstart_of_the_guide_runs(package: Path, rest: Rest) -> None:
    told = run("node", "dist/test/quickstart.js", cwd=package, **surroundings(rest))
    assert told.splitlines() == ["resend 0.9", "422 limit"]


def surroundings(rest: Rest) -> dict[str, str]:
    """Return the environment of a program that uses the client."""
    return {"PGRECALL_URL": rest.server.address, "PGRECALL_KEY": rest.key("read", "write")}
