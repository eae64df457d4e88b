"""Objectives, alert rules, dashboards and the files that carry them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from pgrecall.errors import InvalidInput, OperationRefused
from pgrecall.ops.monitor import alerts as rules
from pgrecall.ops.monitor.alerts import Alert, alerts, recordings, rule_file
from pgrecall.ops.monitor.files import (
    ALERTMANAGER,
    MANIFEST,
    PROMETHEUS,
    RULES,
    MonitoringRequest,
    parse_targets,
    render,
    shipped,
    write,
)
from pgrecall.ops.monitor.objectives import Objectives, kinds, parse_objectives, seconds_of
from pgrecall.telemetry.catalogue import sample_names

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
RUNBOOKS = ROOT / "docs" / "runbooks"
ALERTS = alerts(Objectives())
DASHBOARDS = sorted((DEPLOY / "grafana").glob("*.json"))

OF_EXPORTERS = {
    # prometheus-postgres-exporter 0.11
    "pg_up",
    "pg_exporter_last_scrape_error",
    "pg_exporter_user_queries_load_error",
    "pg_stat_database_blks_hit",
    "pg_stat_database_blks_read",
    "pg_stat_database_xact_commit",
    "pg_stat_database_xact_rollback",
    # the pgbouncer_exporter of the Prometheus community
    "pgbouncer_up",
    "pgbouncer_pools_client_maxwait_seconds",
    # Prometheus itself
    "up",
    "ALERTS",
}


def run(program: str, *arguments: str | Path, cwd: Path) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    done = subprocess.run(
        [program, *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


# Objectives


def test_objectives_can_be_set_one_by_one() -> None:
    given = parse_objectives(["backup_age_seconds=7200", "window = 90s", "for_factor=0"])
    assert (given.backup_age_seconds, given.window, given.for_factor) == (7200, "90s", 0)
    assert given.recall_p95_seconds == Objectives().recall_p95_seconds
    assert parse_objectives(["disk_days_left=3", "disk_days_left=4"]).disk_days_left == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("backup_age=1", "names none that exists"),
        ("backup_age_seconds", "has no value"),
        ("backup_age_seconds=soon", "no number"),
        ("backup_age_seconds=0", "not above 0"),
        ("backup_age_seconds=nan", "not above 0"),
        ("backup_age_seconds=inf", "not above 0"),
        ("failure_ratio=5", "between 0 and 1"),
        ("window=5", "no duration"),
        ("window=0s", "no duration"),
        ("window=5m1h", "no duration"),
        ("window=", "no duration"),
        ("for_factor=-1", "negative"),
    ],
)
def test_a_wrong_objective_is_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        parse_objectives([text])
    assert text.split("=")[0].strip() in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("name", list(kinds()))
def test_every_objective_changes_the_rules(name: str) -> None:
    other = {"duration": "7m", "factor": "3", "ratio": "0.5"}.get(kinds()[name], "12345")
    assert rule_file(parse_objectives([f"{name}={other}"])) != rule_file()


def test_every_objective_is_explained_with_its_default_and_its_alert() -> None:
    text = (ROOT / "docs" / "explanation" / "objectives.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", text, re.MULTILINE))
    defaults = Objectives()
    assert rows == {name: shown(getattr(defaults, name)) for name in kinds()}
    named = set(re.findall(r"runbooks/(\w+)\.md", text))
    assert named == {alert.full_name for alert in ALERTS}


def shown(value: float | str) -> str:
    return value if isinstance(value, str) else rules.number(value)


def test_durations_are_read_as_prometheus_does() -> None:
    assert [seconds_of(text) for text in ("5m", "1h30m", "500ms")] == [300, 5400, 0.5]


# Rules


def test_what_is_checked_in_is_what_would_be_written() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "dashboards.py", "--check"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("promtool", ("check", "rules", RULES)),
        ("promtool", ("test", "rules", "rules_test.yml")),
        ("promtool", ("check", "config", PROMETHEUS)),
        ("amtool", ("check-config", ALERTMANAGER)),
    ],
    ids=lambda value: value if isinstance(value, str) else value[-1],
)
def test_the_programs_themselves_approve(program: str, arguments: tuple[str, ...]) -> None:
    run(program, *arguments, cwd=DEPLOY / "prometheus")


def test_rules_stay_valid_with_other_objectives(tmp_path: Path) -> None:
    for_tests = parse_objectives(
        ["window=5s", "disk_window=10s", "for_factor=0.001", "disk_days_left=0.0001"]
    )
    write(tmp_path, MonitoringRequest(objectives=for_tests, targets={"agents": ["[::1]:9464"]}))
    run("promtool", "check", "rules", RULES, cwd=tmp_path)
    run("promtool", "check", "config", PROMETHEUS, cwd=tmp_path)
    at_once = rule_file(parse_objectives(["for_factor=0"]))["groups"][0]["rules"]
    assert not any("for" in rule for rule in at_once)


def _tests() -> list[tuple[str, list[dict[str, Any]]]]:
    file = yaml.safe_load((DEPLOY / "prometheus" / "rules_test.yml").read_text())
    return [
        (test["alertname"], test["exp_alerts"])
        for group in file["tests"]
        for test in group.get("alert_rule_test", [])
    ]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: f"{alert.name}-{alert.severity}")
def test_every_rule_is_shown_silent_and_firing(alert: Alert) -> None:
    expected = [found for name, found in _tests() if name == alert.full_name]
    assert [] in expected, "nothing shows that it stays silent"
    fired = [item for found in expected for item in found]
    assert any(item["exp_labels"]["severity"] == alert.severity for item in fired)
    for item in fired:
        assert set(item["exp_annotations"]) == {"summary", "description", "runbook"}


def test_no_alert_falls_silent_without_another_that_speaks() -> None:
    names = {alert.name for alert in ALERTS}
    for alert in ALERTS:
        if alert.name != "MonitorDown":
            assert alert.guarded_by in names, alert.name
            assert alert.guarded_by != alert.name or alert.name == "CollectorFailing"
    (monitor_down,) = (alert for alert in ALERTS if alert.name == "MonitorDown")
    assert "absent(" in monitor_down.expr


def test_every_alert_has_its_page_and_every_page_its_alert() -> None:
    pages = {page.stem for page in RUNBOOKS.glob("*.md")} - {"README"}
    assert pages == {alert.full_name for alert in ALERTS}
    index = (RUNBOOKS / "README.md").read_text()
    for alert in ALERTS:
        assert f"({alert.full_name}.md)" in index
        row = next(line for line in index.splitlines() if f"({alert.full_name}.md)" in line)
        assert alert.severity in row, f"{alert.name}: README.md says another severity"


def test_the_runbooks_can_lie_elsewhere() -> None:
    group = rule_file(runbooks="https://wiki.example.com/pg/")["groups"][0]
    links = [rule["annotations"]["runbook"] for rule in group["rules"] if "alert" in rule]
    assert links[0] == "https://wiki.example.com/pg/PgrecallMonitorDown.md"


# What the queries ask for


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            if panel["type"] != "row":
                yield f"{path.stem}: {panel['title']}", panel


def queries() -> Iterator[tuple[str, str]]:
    """Return where each query stands, and the query, without Grafana's variables."""
    for name, expr in recordings(Objectives()).items():
        yield name, expr
    for alert in ALERTS:
        yield alert.full_name, alert.expr
    for place, panel in panels():
        for target in panel["targets"]:
            expr = target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*")
            yield place, expr
    for page in sorted((ROOT / "docs").rglob("*.md")):
        for block in re.findall(r"(?ms)^```promql\n(.*?)^```$", page.read_text()):
            yield page.name, block


def metrics_of(expr: str) -> set[str]:
    found: set[str] = set()

    def visit(node: object) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.add(str(node.name))
            return
        for name in ("expr", "lhs", "rhs", "vector_selector"):
            child = getattr(node, name, None)
            if child is not None:
                visit(child)
        for child in getattr(node, "args", None) or ():
            visit(child)

    visit(promql_parser.parse(expr))
    return found


def known_metrics() -> set[str]:
    return {*sample_names(), *OF_EXPORTERS, *recordings(Objectives())}


def test_metrics_are_found_in_every_corner_of_a_query() -> None:
    assert metrics_of(
        "max by (x) (rate(a_total[5m]) / on (i) (b > 1)) or -(deriv(c[1h]) < 0) "
        "or histogram_quantile(0.9, sum by (le) (d_bucket)) unless absent(e) or vector(0)"
    ) == {"a_total", "b", "c", "d_bucket", "e"}


@pytest.mark.parametrize(("place", "expr"), [*queries()], ids=lambda text: text[:60])
def test_a_query_parses_and_asks_for_metrics_that_exist(place: str, expr: str) -> None:
    assert "$" not in expr, f"{place}: a variable that is not known"
    unknown = metrics_of(expr) - known_metrics()
    assert not unknown, f"{place}: {unknown}"


# Dashboards


@pytest.mark.parametrize(
    ("place", "panel"), [*panels()], ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_panel_says_what_it_shows(place: str, panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith("."), "its description is a sentence"
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"]["uid"] == "${datasource}"
    assert all(target["legendFormat"] for target in panel["targets"])


def test_dashboards_are_told_apart_and_lead_to_each_other() -> None:
    boards = [json.loads(path.read_text()) for path in DASHBOARDS]
    assert len(boards) >= 3
    assert len({board["uid"] for board in boards}) == len(boards)
    for board in boards:
        assert "pgrecall" in board["tags"]
        assert any(link["tags"] == ["pgrecall"] for link in board["links"])
        assert [item["name"] for item in board["templating"]["list"]] == ["datasource", "instance"]
        ids = [panel["id"] for panel in board["panels"]]
        assert len(set(ids)) == len(ids)


# Files


def states(directory: Path, **options: Any) -> dict[str, str]:
    written = write(directory, **options)
    return {str(item.path.relative_to(directory)): item.state for item in written}


def test_everything_is_written_once(tmp_path: Path) -> None:
    first = states(tmp_path)
    assert set(first.values()) == {"created"}
    assert {RULES, PROMETHEUS, ALERTMANAGER, "grafana/memory.json"} <= set(first)
    assert set(states(tmp_path).values()) == {"unchanged"}
    assert {path.name for path in tmp_path.iterdir()} - {name.split("/")[0] for name in first} == {
        MANIFEST
    }
    run("promtool", "check", "config", PROMETHEUS, cwd=tmp_path)
    run("amtool", "check-config", ALERTMANAGER, cwd=tmp_path)


def test_other_objectives_replace_what_nobody_changed(tmp_path: Path) -> None:
    write(tmp_path)
    other = MonitoringRequest(objectives=parse_objectives(["backup_age_seconds=7200"]))
    changed = states(tmp_path, request=other)
    assert {name for name, state in changed.items() if state == "replaced"} == {RULES}
    assert "> 7200" in (tmp_path / RULES).read_text()


def test_a_changed_file_is_kept_unless_forced(tmp_path: Path) -> None:
    write(tmp_path)
    mine = (tmp_path / ALERTMANAGER).read_text().replace("alerts.example.com", "pager.example.com")
    (tmp_path / ALERTMANAGER).write_text(mine)
    other = MonitoringRequest(objectives=parse_objectives(["backup_age_seconds=7200"]))
    with pytest.raises(OperationRefused, match=re.escape(ALERTMANAGER)) as caught:
        write(tmp_path, other)
    assert "--force" in str(caught.value.hint)
    assert (tmp_path / ALERTMANAGER).read_text() == mine
    assert "> 7200" not in (tmp_path / RULES).read_text(), "all or nothing"
    forced = states(tmp_path, request=other, force=True)
    assert (forced[ALERTMANAGER], forced[RULES]) == ("replaced", "replaced")


def test_somebody_elses_file_is_kept(tmp_path: Path) -> None:
    (tmp_path / PROMETHEUS).write_text("global: {}\n")
    with pytest.raises(OperationRefused, match="nothing was written"):
        write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [PROMETHEUS]


def test_a_directory_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OperationRefused, match="file"):
        write(tmp_path / "file" / "below")


def test_targets_are_scraped_under_their_job() -> None:
    targets = parse_targets(["agents=10.0.0.7:9464", "agents=[::1]:9465", "monitor=db:9188"])
    config = yaml.safe_load(render(MonitoringRequest(targets=targets))[PROMETHEUS])
    scraped = {
        job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]
    }
    assert scraped["pgrecall-agents"] == ["10.0.0.7:9464", "[::1]:9465"]
    assert scraped["pgrecall-monitor"] == ["db:9188"]
    assert scraped["pgrecall-postgres"] == ["127.0.0.1:9187"]


@pytest.mark.parametrize("text", ["agents", "agents=host", "nobody=host:1", "agents=a b:1", "=h:1"])
def test_a_wrong_target_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="JOB=HOST:PORT"):
        parse_targets([text])


def test_what_ships_is_what_is_checked_in() -> None:
    names = {item.name for item in (shipped() / "grafana").iterdir()}
    assert {path.name for path in DASHBOARDS} <= names
