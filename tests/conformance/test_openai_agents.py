"""The OpenAI Agents SDK's own tests of sessions, with ours in the places of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from tests.conformance.listed import REFERENCE, left_out
from tests.conformance.suites import source_of

from pgrecall.testing import Database

HERE = Path(__file__).parent / "openai_agents"
PAGE = REFERENCE / "conformance-openai-agents.md"


@pytest.mark.timeout(500)
def test_the_suite_of_the_sdk(pgrecall_database: Database, tmp_path: Path) -> None:
    page = PAGE.read_text()
    files = [
        name
        for line in re.findall(r"^- (.+)", page, re.MULTILINE)
        for name in re.findall(r"`(tests/\S+)`", line)
    ]
    report = tmp_path / "report.xml"
    # Not this directory's parents: the suite has a package named tests as well.
    root = str(Path(__file__).parents[2])
    ours = [place for place in sys.path if place and place != root]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "stand_ins", "-p", "no:cacheprovider",
         f"--junit-xml={report}", *files],
        cwd=source_of("openai-agents"),
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(HERE), *ours]),
            "PGRECALL_SUITE_DSN": pgrecall_database.dsn,
            "PGRECALL_SUITE_USES": str(tmp_path / "uses"),
            "PGRECALL_SUITE_LEFT_OUT": json.dumps(sorted(left_out(page))),
        },
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    told = (done.stdout + done.stderr)[-6000:]
    assert done.returncode == 0, told
    (suite,) = ET.parse(report).getroot().iter("testsuite")
    uses = (tmp_path / "uses").read_text()
    assert suite.attrib["skipped"] == "0", told
    assert f"{suite.attrib['tests']} tests pass, {uses} of them with sessions of ours" in page, (
        told[-300:] + uses
    )
