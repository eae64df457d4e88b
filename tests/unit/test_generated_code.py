"""The synchronous client is, byte for byte, what the generator makes of the asynchronous one."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pgrecall
from pgrecall._async import runtime as async_runtime
from pgrecall._sync import runtime as sync_runtime

ROOT = Path(__file__).resolve().parents[2]


def test_the_checked_in_files_are_current() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "unasync.py", "--check"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_nothing_asynchronous_is_left() -> None:
    for path in (Path(pgrecall.__file__).parent / "_sync").glob("*.py"):
        code = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        for word in ("await ", "async ", "Async", "_async"):
            assert not any(word in line for line in code if '"""' not in line), (path, word)


def test_the_hand_written_runtimes_offer_the_same() -> None:
    def offered(module: object) -> set[str]:
        return {
            name
            for name, value in vars(module).items()
            if inspect.getmodule(value) is module and not name.startswith("_")
        }

    assert offered(async_runtime) == offered(sync_runtime)


def test_both_clients_have_the_same_calls() -> None:
    for name in ("episodes", "knowledge", "sessions", "metrics"):
        asynchronous = sys.modules[f"pgrecall._async.{name}"]
        synchronous = sys.modules[f"pgrecall._sync.{name}"]
        for class_name, member in vars(asynchronous).items():
            if class_name.startswith("Async") and inspect.getmodule(member) is asynchronous:
                twin = getattr(synchronous, class_name.removeprefix("Async"))
                for method, function in inspect.getmembers(member, inspect.isfunction):
                    parameters = [*inspect.signature(function).parameters]
                    assert [*inspect.signature(getattr(twin, method)).parameters] == parameters
