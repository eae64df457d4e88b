"""README and documentation do what they say: their blocks run, in order, one page after another.

What a fenced block stands for is its info string:

- ``python`` runs in the page's own namespace; where it has lines ``#> ...``, what it prints must
  be these lines.
- ``console``: the lines after ``$`` are run by bash as one script, and each must succeed.
- ``sql`` runs as the owner of the page's database, or in its own words whoever ``-- as`` names.
- ``promql`` must be an expression that Prometheus can read.
- ``file=NAME`` after the language: the block is written to that file.
- ``norun`` after the language: not run, for the reason in the HTML comment above the block.

Each page gets an empty directory and an empty server. A page that speaks of ``ADMIN_DSN`` finds
that server's superuser in it, as if the server were one of its reader's; for the others it is the
embedded server, not yet provisioned.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import promql_parser
import psycopg
import pytest
from psycopg import sql

import pgrecall
from pgrecall import errors
from pgrecall.config import load_settings
from pgrecall.engine import EmbeddedServer
from pgrecall.targets import resolve_dsn

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN = ("python", "console", "sql", "promql")
# Those in TypeScript are run by tests/integration/serving/rest/test_typescript.py.
SHOWN = ("", "text", "json", "mermaid", "toml", "ts", "yaml", "ini")
MOST_NOT_RUN = 6

_FENCE = re.compile(r"^```(?P<info>[^`]*)$")
_LINK = re.compile(r"\]\((?!https?://|mailto:)(?P<target>[^)#\s]*)(?:#(?P<anchor>[^)\s]*))?\)")


@dataclass(frozen=True)
class Block:
    """One fenced block; ``line`` is that of its first line of text."""

    page: Path
    line: int
    info: str
    text: str
    above: str

    @property
    def language(self) -> str:
        return self.info.split(" ")[0]

    @property
    def words(self) -> list[str]:
        return self.info.split(" ")[1:]

    @property
    def file(self) -> str | None:
        return next((word[5:] for word in self.words if word.startswith("file=")), None)

    @property
    def runs(self) -> bool:
        used = self.language in RUN or self.file is not None
        return used and "norun" not in self.words

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    blocks = []
    lines = page.read_text().splitlines()
    opened: tuple[int, str] | None = None
    for number, line in enumerate(lines):
        if opened is not None and line == "```":
            start, info = opened
            above = next((text for text in reversed(lines[: start - 1]) if text.strip()), "")
            text = "\n".join(lines[start:number])
            blocks.append(Block(page, start + 1, info, text, above))
            opened = None
        elif opened is None and (fence := _FENCE.match(line)):
            opened = (number + 1, fence["info"].strip())
    assert opened is None, f"{page}: the block at line {opened} does not end"
    return blocks


def pages_that_run() -> list[Path]:
    return [page for page in PAGES if page.exists() and any(b.runs for b in blocks_of(page))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(tmp_path_factory.mktemp("documentation") / "server")
    server.start()
    yield server
    server.stop(force=True)  # a page that failed may have left its memory open
    server.destroy()


@pytest.fixture(scope="module")
def programs(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH on which ``pgrecall``, ``python``, ``pytest`` and ``psql`` are found."""
    directory = tmp_path_factory.mktemp("programs")
    for name, module in (("pgrecall", "pgrecall.cli"), ("pytest", "pytest"), ("python", "")):
        script = directory / name
        words = f'"{sys.executable}"' + (f" -m {module}" if module else "")
        script.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        script.chmod(0o755)
    return os.pathsep.join([str(directory), str(server.bin_dir()), os.environ["PATH"]])


@pytest.fixture
def surroundings(
    page: Path,
    server: EmbeddedServer,
    programs: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[None]:
    """An empty directory, an empty server, and nothing configured."""
    server.start()  # a page may have stopped it
    make_empty(server.admin_dsn())
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.syspath_prepend(work)
    monkeypatch.setenv("PATH", programs)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package_home()), str(work)]))
    monkeypatch.setenv("PGRECALL_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("PGRECALL_DATA_DIR", str(server.data_dir))
    monkeypatch.setenv("PGRECALL_TEST_ADMIN_DSN", server.admin_dsn())
    if "ADMIN_DSN" in page.read_text():
        monkeypatch.setenv("PGRECALL_DATA_DIR", str(tmp_path / "no-server"))
        monkeypatch.setenv("ADMIN_DSN", server.admin_dsn())
    if "pgrecall backup pitr" not in page.read_text():
        yield
        return
    # A server of its own: it is restarted, and its user must reach the archive beside it.
    reachable = Path(tempfile.mkdtemp(prefix="pgr-"))
    reachable.chmod(0o755)
    own = EmbeddedServer(reachable / "server")
    monkeypatch.setenv("PGRECALL_DATA_DIR", str(own.data_dir))
    try:
        yield
    finally:
        if own.data_dir.exists():
            own.destroy(force=True)
        shutil.rmtree(reachable)


def package_home() -> Path:
    return Path(pgrecall.__file__).resolve().parent.parent


def make_empty(admin_dsn: str) -> None:
    """Drop every database and role that a page has made."""
    with psycopg.connect(admin_dsn, autocommit=True) as admin:
        kept = ("postgres", "template0", "template1")
        databases = admin.execute(
            "SELECT datname FROM pg_database WHERE datname <> ALL (%s)", [[*kept]]
        ).fetchall()
        for (name,) in databases:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        roles = admin.execute(
            "SELECT rolname FROM pg_roles WHERE oid >= 16384 AND rolname <> current_user"
        ).fetchall()
        for (name,) in roles:
            admin.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
        for (name,) in roles:
            admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.fixture
def own_loop() -> Iterator[None]:
    """The event loop that pages find: who asks for one without running it leaves it open."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    loop.close()
    asyncio.set_event_loop(None)


@pytest.mark.usefixtures("surroundings", "own_loop")
@pytest.mark.parametrize("page", pages_that_run(), ids=name_of)
def test_a_page_runs(page: Path) -> None:
    names: dict[str, object] = {"__name__": f"page:{page.stem}"}
    for block in blocks_of(page):
        if not block.runs:
            continue
        if block.file is not None:
            Path(block.file).write_text(block.text + "\n")
        elif block.language == "python":
            run_python(block, names)
        elif block.language == "console":
            run_console(block)
        elif block.language == "promql":
            promql_parser.parse(block.text)
        else:
            run_sql(block)


def run_python(block: Block, names: dict[str, object]) -> None:
    # Blank lines in front make tracebacks name the page's own lines.
    code = compile("\n" * (block.line - 1) + block.text, str(block.page), "exec")
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            exec(code, names)
    except Exception as error:
        error.add_note(f"in the block at {block.place}, which printed:\n{printed.getvalue()}")
        raise
    expected = [line[3:] for line in block.text.splitlines() if line.startswith("#> ")]
    if expected:
        found = printed.getvalue().splitlines()
        assert found == expected, f"the block at {block.place} printed something else"


def run_console(block: Block) -> None:
    lines, continued = [], False
    for line in block.text.splitlines():
        command = line.removeprefix("$ ") if line.startswith("$ ") or continued else ""
        continued = command.endswith("\\")
        lines.append(command)
    # Lines of the script stand where they stand on the page, so that bash names the right one.
    head = "trap 'echo \"line $LINENO\" >&2' ERR"
    script = head + "\n" * (block.line - 1) + "\n".join(lines)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (
        f"the block at {block.place} gave exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    )


def run_sql(block: Block) -> None:
    role = re.match(r"-- as (\w+)", block.text)
    dsn = resolve_dsn(load_settings(), role[1] if role else "owner")
    try:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(block.text.encode())
    except psycopg.Error as error:
        error.add_note(f"in the block at {block.place}")
        raise


@pytest.mark.parametrize("page", [page for page in PAGES if page.exists()], ids=name_of)
def test_a_page_hides_nothing(page: Path) -> None:
    for block in blocks_of(page):
        assert block.language in (*RUN, *SHOWN), f"{block.place}: {block.language} is not run"
        if "norun" in block.words:
            assert re.fullmatch(r"<!-- .*: .*-->", block.above), f"{block.place}: say why above it"


def test_a_block_that_fails_names_its_line() -> None:
    page = ROOT / "page.md"
    with pytest.raises(AssertionError, match=r"page\.md:3 gave exit code 1\s+line 4"):
        run_console(Block(page, 3, "console", "$ true\n$ false\n$ true", ""))
    with pytest.raises(ZeroDivisionError) as caught:
        run_python(Block(page, 3, "python", "a = 1\na / 0", ""), {})
    assert caught.traceback[-1].lineno + 1 == 4
    assert "page.md:3" in caught.value.__notes__[0]
    with pytest.raises(AssertionError, match="something else"):
        run_python(Block(page, 3, "python", "print(1)\n#> 2", ""), {})


def test_few_blocks_are_not_run() -> None:
    blocks = [block for page in PAGES if page.exists() for block in blocks_of(page)]
    left_out = [block.place for block in blocks if "norun" in block.words]
    assert len(left_out) <= MOST_NOT_RUN, left_out
    assert sum(block.runs for block in blocks) > 5 * len(left_out)


@pytest.mark.parametrize("page", [page for page in PAGES if page.exists()], ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.finditer(page.read_text()):
        target = (page.parent / link["target"]).resolve() if link["target"] else page
        assert target.exists(), f"{name_of(page)} links to {link['target']}"
        if link["anchor"] and target.suffix == ".md":
            assert link["anchor"] in anchors_of(target), f"{name_of(page)}: #{link['anchor']}"


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that headings get where Markdown is shown."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {text.strip().replace(" ", "-") for text in plain}


def test_every_page_is_in_an_index() -> None:
    docs = ROOT / "docs"
    for page in docs.rglob("*.md"):
        path = page.relative_to(docs)
        if path.parts[0] == "decisions" or path == Path("README.md"):
            continue
        # A directory with an index of its own lists its pages there.
        index = page.parent / "README.md"
        if page.name == "README.md" or not index.exists():
            index = docs / "README.md"
        link = page.relative_to(index.parent)
        assert f"({link})" in index.read_text(), f"{index.relative_to(ROOT)} lacks {link}"


def test_the_python_reference_is_what_would_be_written() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "python_reference.py", "--check"],
        env={**os.environ, "PYTHONPATH": str(package_home())},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_error_is_explained() -> None:
    text = (ROOT / "docs" / "reference" / "errors.md").read_text()
    kinds = [value for value in vars(errors).values() if isinstance(value, type)]
    assert len(kinds) > 20
    for kind in kinds:
        assert f"`{kind.__name__}`" in text, f"docs/reference/errors.md lacks {kind.__name__}"


def test_every_check_of_doctor_is_explained() -> None:
    from pgrecall.ops.doctor import CHECKS

    text = (ROOT / "docs" / "how-to" / "check-and-repair.md").read_text()
    for check_id, _, _ in CHECKS:
        assert f"`{check_id}`" in text, f"docs/how-to/check-and-repair.md lacks {check_id}"
