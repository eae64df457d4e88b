"""The suite of MCP's own authors for servers, against a running `pgrecall serve`."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from tests.integration.serving.rest.conftest import rest_server

if TYPE_CHECKING:
    from pgrecall.testing import Template

HERE = Path(__file__).parent / "mcp"
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "mcp.md"
PASSING = {
    "server-initialize", "ping", "tools-list", "tools-call-simple-text", "tools-call-error",
    "resources-list", "prompts-list", "dns-rebinding-protection",
}  # fmt: skip


@pytest.mark.timeout(300)
def test_the_suite_of_the_protocol(pgrecall_template: Template, tmp_path: Path) -> None:
    suite = tmp_path / "suite"
    shutil.copytree(HERE, suite, ignore=shutil.ignore_patterns("node_modules"))
    subprocess.run(["npm", "ci", "--silent", "--prefer-offline"], cwd=suite, check=True)
    # Without keys: the suite sends none.
    with rest_server(pgrecall_template, tmp_path) as rest:
        done = subprocess.run(
            ["npx", "--no-install", "conformance", "server", "--url",
             f"{rest.server.address}/mcp", "--expected-failures", "left-out.yml"],
            cwd=suite, capture_output=True, text=True, check=False,
        )  # fmt: skip
    told = done.stdout + done.stderr
    passed = set(re.findall(r"^✓ ([\w-]+): [1-9]", told, re.MULTILINE))
    assert passed == PASSING, told[-3000:]
    assert done.returncode == 0, told[-3000:]


def test_the_page_says_what_is_left_out_and_why() -> None:
    left_out = set(yaml.safe_load((HERE / "left-out.yml").read_text())["server"])
    rows = re.findall(r"^\| (`.*?) \| \w", PAGE.read_text(), re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`([\w-]+)`", row)} == left_out
