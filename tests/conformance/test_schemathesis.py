"""The whole HTTP interface, by generated requests, against what its OpenAPI document promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.integration.serving.rest.conftest import rest_server

if TYPE_CHECKING:
    from pgrecall.testing import Template

EXAMPLES = os.environ.get("PGRECALL_CONFORMANCE_EXAMPLES", "4")
"""Requests for each operation; `make conformance` makes many more."""

CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_headers_conformance", "response_schema_conformance", "ignored_auth",
)  # fmt: skip


@pytest.mark.timeout(3000)
def test_no_request_breaks_a_promise(pgrecall_template: Template, tmp_path: Path) -> None:
    with rest_server(pgrecall_template, tmp_path, guarded=True) as rest:
        done = subprocess.run(
            [
                str(Path(sys.executable).parent / "schemathesis"), "run",
                f"{rest.server.address}/openapi.json",
                "--header", f"Authorization: Bearer {rest.key()}",
                "--checks", ",".join(CHECKS),
                "--phases", "examples,fuzzing",
                "--max-examples", EXAMPLES,
                "--generation-deterministic",
                "--workers", "2",
                "--suppress-health-check", "all",
                "--no-color",
            ],
            cwd=tmp_path,
            env={**os.environ, "SCHEMATHESIS_HOOKS": "lines_of_json",
                 "PYTHONPATH": str(Path(__file__).parent)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    told = done.stdout + done.stderr
    cases = re.search(r"([\d,]+) generated", told)
    print("schemathesis:", cases[0] if cases else told[-500:])
    assert done.returncode == 0, told[-6000:]
