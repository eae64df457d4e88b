"""What Prometheus, Alertmanager, the exporter and Grafana need to watch a memory, as files."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

from pgrecall.errors import InvalidInput, MissingExtra, OperationRefused
from pgrecall.ops.monitor.alerts import (
    AGENTS,
    MONITOR,
    NAMESPACE,
    PGBOUNCER,
    POSTGRES,
    RUNBOOKS,
    rule_file,
)
from pgrecall.ops.monitor.objectives import Objectives

RULES, PROMETHEUS, ALERTMANAGER = "rules.yml", "prometheus.yml", "alertmanager.yml"
QUERIES = "postgres-exporter-queries.yaml"
MANIFEST = ".pgrecall-monitor.json"
"""Remembers what was written, so that a file changed by hand is told from an old one."""

JOBS = {"monitor": MONITOR, "agents": AGENTS, "postgres": POSTGRES, "pgbouncer": PGBOUNCER}
"""What a target is called on the command line, and the job under which it is scraped."""

_HEAD = "# Made by pgrecall monitor config.\n"
_TARGET = re.compile(r"(?P<job>[a-z]+)=(?P<address>(?:\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):[0-9]{1,5})")


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitoringRequest:
    """What the files are to say.

    Attributes:
        objectives: The numbers of the alerts.
        runbooks: Directory or URL of the runbooks, for the alerts' links.
        targets: Addresses (``host:port``) to scrape, by a key of ``JOBS``; what is not named
            keeps its default.
    """

    objectives: Objectives = field(default_factory=Objectives)
    runbooks: str = RUNBOOKS
    targets: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenFile:
    """One of the files.

    Attributes:
        path: Where it lies.
        state: What was done.
        purpose: What reads it.
    """

    path: Path
    state: Literal["created", "replaced", "unchanged"]
    purpose: str


DEFAULT_TARGETS: Mapping[str, Sequence[str]] = {
    "monitor": ("127.0.0.1:9188",),
    "postgres": ("127.0.0.1:9187",),
    "agents": (),
    "pgbouncer": (),
}


def parse_targets(assignments: Iterable[str]) -> dict[str, list[str]]:
    """Return the targets named by texts such as ``"agents=10.0.0.7:9464"``.

    Raises:
        InvalidInput: One is not of that form, or names no job that exists.
    """
    targets: dict[str, list[str]] = {}
    for text in assignments:
        match = _TARGET.fullmatch(text.strip())
        if match is None or match["job"] not in JOBS:
            raise InvalidInput(
                f"target {text!r} is not of the form JOB=HOST:PORT",
                hint=f"the jobs are {', '.join(JOBS)}",
            )
        targets.setdefault(match["job"], []).append(match["address"])
    return targets


def shipped() -> Traversable:
    """Return the directory of the files that come with the package."""
    packaged = files("pgrecall") / "deploy"
    # In a checkout they lie where people look for them.
    return packaged if packaged.is_dir() else Path(__file__).parents[4] / "deploy"


def render(request: MonitoringRequest) -> dict[str, str]:
    """Return the text of every file, by its path in the directory.

    Raises:
        MissingExtra: PyYAML is not installed.
    """
    rules = rule_file(request.objectives, runbooks=request.runbooks)
    texts = {
        RULES: _HEAD + "# Change its objectives rather than this.\n" + as_yaml(rules),
        PROMETHEUS: _HEAD
        + f"# Start: prometheus --config.file={PROMETHEUS}\n"
        + as_yaml(_prometheus(request.targets)),
        ALERTMANAGER: _HEAD
        + "# An example: put your own receivers in the place of the webhooks.\n"
        + as_yaml(_alertmanager()),
    }
    queries = shipped() / "prometheus" / QUERIES
    if queries.is_file():
        texts[QUERIES] = queries.read_text(encoding="utf-8")
    for dashboard in sorted((shipped() / "grafana").iterdir(), key=lambda item: item.name):
        if dashboard.name.endswith(".json"):
            texts[f"grafana/{dashboard.name}"] = dashboard.read_text(encoding="utf-8")
    return texts


def _prometheus(targets: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    addresses = {**DEFAULT_TARGETS, **targets}
    return {
        "global": {"scrape_interval": "15s", "evaluation_interval": "15s"},
        "rule_files": [RULES],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": ["127.0.0.1:9093"]}]}]},
        "scrape_configs": [
            {"job_name": JOBS[job], "static_configs": [{"targets": [*addresses[job]]}]}
            for job in JOBS
            # The pooler's exporter is one of several ways to see it; agents are always meant.
            if addresses[job] or job == "agents"
        ],
    }


def _alertmanager() -> dict[str, Any]:
    def receiver(name: str) -> dict[str, Any]:
        return {
            "name": name,
            "webhook_configs": [{"url": f"http://alerts.example.com/{name}"}],
        }

    return {
        "route": {
            "receiver": "ticket",
            "group_by": ["alertname", "job"],
            "group_wait": "30s",
            "group_interval": "5m",
            "repeat_interval": "12h",
            "routes": [
                {"matchers": ['severity="page"'], "receiver": "page", "repeat_interval": "1h"}
            ],
        },
        "inhibit_rules": [
            # What follows from it is not told as well.
            {
                "source_matchers": [f'alertname="{NAMESPACE}DatabaseUnreachable"'],
                "target_matchers": [
                    f'alertname=~"{NAMESPACE}(CollectorFailing|SamplerStale|OperationsFailing)"'
                ],
                "equal": ["cluster"],
            },
            # One disk is told once.
            {
                "source_matchers": [f'alertname="{NAMESPACE}DiskFilling"', 'severity="page"'],
                "target_matchers": [f'alertname="{NAMESPACE}DiskFilling"', 'severity="ticket"'],
                "equal": ["instance"],
            },
        ],
        "receivers": [receiver("page"), receiver("ticket")],
    }


def as_yaml(content: object) -> str:
    """Return YAML as people write it: keys in their order, long texts as blocks.

    Raises:
        MissingExtra: PyYAML is not installed.
    """
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise MissingExtra("writing monitoring files", "monitor") from error

    class Dumper(yaml.SafeDumper):
        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            del indentless  # lists stand below their key, not at its side
            super().increase_indent(flow, False)

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    written = yaml.dump(content, Dumper=Dumper, sort_keys=False, width=100, allow_unicode=True)
    return str(written)


def write(
    directory: Path, request: MonitoringRequest | None = None, *, force: bool = False
) -> tuple[WrittenFile, ...]:
    """Write all files; what was changed by hand is kept.

    Args:
        directory: Where they go; made if need be.
        request: What they are to say; the defaults unless given.
        force: Replace files that were changed by hand, or made by somebody else, too.

    Raises:
        OperationRefused: A file there was changed by hand, or cannot be written. Of the first kind
            nothing was written at all.
        MissingExtra: PyYAML is not installed.
    """
    texts = render(request or MonitoringRequest())
    directory = directory.expanduser().absolute()
    try:
        states = {name: _state(directory / name, text) for name, text in texts.items()}
        ours = _read_manifest(directory)
        theirs = [
            name
            for name, state in states.items()
            if state == "replaced" and ours.get(name) != _digest((directory / name).read_bytes())
        ]
        if theirs and not force:
            raise OperationRefused(
                f"nothing was written: in {directory} somebody changed {', '.join(theirs)}",
                hint="name another directory and compare, or replace them with --force",
            )
        for name, text in texts.items():
            if states[name] != "unchanged":
                _replace(directory / name, text)
        digests = {name: _digest(text.encode()) for name, text in texts.items()}
        _replace(directory / MANIFEST, json.dumps(digests, indent=1) + "\n")
    except OSError as error:
        raise OperationRefused(
            f"{error.filename or directory} cannot be written: {error.strerror}",
            hint="name a directory that you may write to",
        ) from error
    return tuple(
        WrittenFile(path=directory / name, state=state, purpose=_purpose(name))
        for name, state in states.items()
    )


def _state(path: Path, text: str) -> Literal["created", "replaced", "unchanged"]:
    if not path.exists():
        return "created"
    return "unchanged" if path.read_bytes() == text.encode() else "replaced"


def _read_manifest(directory: Path) -> dict[str, str]:
    path = directory / MANIFEST
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        return {}  # then nothing is known to be ours, and everything is kept


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _purpose(name: str) -> str:
    return {
        RULES: "alert rules, for Prometheus",
        PROMETHEUS: "what to scrape, for Prometheus",
        ALERTMANAGER: "who is told, for Alertmanager",
        QUERIES: "queries, for prometheus-postgres-exporter",
    }.get(name, "a dashboard, for Grafana")
