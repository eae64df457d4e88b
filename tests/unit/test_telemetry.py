"""Telemetry's parts that need no database."""

from __future__ import annotations

import asyncio
import gc
import io
import logging
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from pgrecall import errors
from pgrecall.config import load_settings
from pgrecall.telemetry.logs import configure
from pgrecall.telemetry.operations import TABLES, Operation, failure_of
from pgrecall.telemetry.prometheus import Instruments, OpenMemories

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "how-to" / "observe-your-agent.md"


def operation(
    project_id: Any = None, failure: str | None = None, *, refused: bool = False
) -> Operation:
    made = Operation("list_episodes", project_id, kept=True, ended=(), spans=None)
    made.failure, made.refused = failure, refused
    return made


def exposed(registry: CollectorRegistry) -> str:
    return generate_latest(registry).decode()


def test_every_operation_and_metric_is_documented() -> None:
    text = PAGE.read_text()
    for name in TABLES:
        assert f"`{name}`" in text, name
    registry = CollectorRegistry()
    Instruments(registry)
    families = re.findall(r"^# TYPE (pgrecall_\w+) \w+$", exposed(registry), re.MULTILINE)
    names = {name for name in families if not name.endswith("_created")}
    assert len(names) == 12
    for name in names:
        assert f"`{name}`" in text, name
    documented = set(re.findall(r"`(pgrecall_\w+)`", text))
    assert documented <= names


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.ConnectionLost("x"), "ConnectionLost"),
        (errors.MissingExtra("x", "y"), "MissingExtra"),
        (type("Mine", (errors.EmbeddingError,), {})("x"), "EmbeddingError"),
        (KeyError("x"), "Other"),
        (asyncio.CancelledError(), "Cancelled"),
        (KeyboardInterrupt(), "Cancelled"),
    ],
)
def test_failures_are_of_few_kinds(error: BaseException, kind: str) -> None:
    assert failure_of(error) == kind


def test_projects_take_places_in_turn() -> None:
    projects = Instruments(CollectorRegistry()).projects
    assert projects.label(operation("a")) == ""
    projects.most = 2
    labels = [projects.label(operation(name)) for name in ("a", None, "b", "c", "a")]
    assert labels == ["a", "", "b", "other", "a"]


def test_a_misspelt_project_takes_no_place() -> None:
    projects = Instruments(CollectorRegistry()).projects
    projects.most = 1
    assert projects.label(operation("x", "InvalidInput", refused=True)) == "other"
    assert projects.label(operation("a", "Unavailable")) == "a"
    assert projects.label(operation("a", "InvalidInput", refused=True)) == "a"


class Source:
    def __init__(self, **figures: int) -> None:
        self.now = figures

    def figures(self) -> dict[str, int]:
        return self.now


def test_sums_never_fall() -> None:
    memories = OpenMemories()
    closed, dropped = Source(requests_num=5, pool_max=2), Source(requests_num=7, pool_max=3)
    kept = Source(requests_num=1, pool_max=4, metrics_lost=2)
    for source in (closed, dropped, kept):
        memories.add(source.figures)
    assert memories.sums() == {"requests_num": 13, "pool_max": 9, "metrics_lost": 2}
    closed.now["requests_num"] = 6
    memories.remove(closed.figures)
    del dropped
    gc.collect()
    assert memories.sums() == {"requests_num": 14, "pool_max": 4, "metrics_lost": 2}
    memories.remove(closed.figures)
    assert memories.sums()["requests_num"] == 14, "closing twice counts once"


def test_setting_it_up_again_replaces_it(monkeypatch: pytest.MonkeyPatch) -> None:
    root, ours = logging.getLogger(), logging.getLogger("pgrecall")
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    level = ours.level
    first, second = io.StringIO(), io.StringIO()
    try:
        configure(load_settings(log_format="json"), first)
        configure(load_settings(log_level="warning"), second)
        ours.info("not this")
        ours.warning("this, password kept\nout")
        logging.getLogger("another.library").info("nor this")
        try:
            int("a\nb")
        except ValueError:
            logging.getLogger("another.library").exception("that")
    finally:
        ours.setLevel(level)
    assert first.getvalue() == ""
    lines = second.getvalue().splitlines()
    assert len(lines) == 2
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00 WARNING pgrecall "
        r"this, password kept\\nout",
        lines[0],
    )
    assert "ERROR another.library that\\nTraceback" in lines[1]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PGRECALL_PROMETHEUS_PORT", "0"),
        ("PGRECALL_PROMETHEUS_PORT", "70000"),
        ("PGRECALL_PROMETHEUS_PROJECTS", "-1"),
        ("PGRECALL_LOG_LEVEL", "loud"),
        ("PGRECALL_LOG_FORMAT", "xml"),
        ("PGRECALL_TRACES", "perhaps"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(errors.ConfigurationError, match=name):
        load_settings()


def test_all_is_off_unless_asked_for() -> None:
    settings = load_settings()
    assert not settings.prometheus
    assert settings.prometheus_port is None
    assert settings.prometheus_projects == 0
    assert not settings.traces
    assert (settings.log_level, settings.log_format) == ("INFO", "text")
    assert load_settings(log_level="debug").log_level == "DEBUG"


def test_another_broken_package_is_not_taken_for_a_missing_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pgrecall.telemetry.choosing import choose_telemetry

    monkeypatch.delitem(sys.modules, "pgrecall.telemetry.prometheus")
    monkeypatch.setitem(sys.modules, "weakref", None)
    with pytest.raises(ModuleNotFoundError, match="weakref"):
        choose_telemetry(load_settings(prometheus=True), None)
