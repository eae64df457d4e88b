"""The chart renders in both modes and with every option, and the published schemas accept it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import yaml
from tests.deploy.chart import (
    CHART,
    CNPG,
    EXISTING,
    Resource,
    helm,
    pick,
    pods,
    problems,
    render,
)

OPERATED = {
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
    "dashboards": {"enabled": True},
}
VARIANTS: dict[str, Mapping[str, Any]] = {
    "existing": EXISTING,
    "existing-all": {
        **EXISTING,
        **OPERATED,
        "image": {"tag": "edge", "pullSecrets": [{"name": "registry"}]},
        "database": {"host": "db", "port": 5433, "name": "planner", "caSecret": "db-ca"},
        "init": {"enabled": True, "resetPasswords": True},
        "backup": {
            "to": "s3://backups/memory",
            "envSecret": "s3",
            "recipients": ["age1abc", "age1def"],
            "identitySecret": "age",
            "also": ["planner_app"],
        },
        "pooler": {"tlsSecret": "tls", "settings": {"server_idle_timeout": 60}},
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "memory", "operator": "Exists"}],
    },
    "existing-claim": {**EXISTING, "backup": {"claim": "backups"}},
    "existing-bare": {
        "database": {"host": "db"},
        "migrate": {"backup": False},
        "pooler": {"enabled": False},
        "monitor": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "podDisruptionBudget": {"enabled": False},
        "schedules": dict.fromkeys(("backup", "prune", "drill", "sessions", "metrics"), ""),
    },
    "cnpg": CNPG,
    "cnpg-all": {
        **CNPG,
        **OPERATED,
        "cnpg": {
            "storage": {"storageClass": "fast"},
            "walStorage": {"storageClass": "fast"},
            "synchronous": True,
            "backup": {"objectStore": "backups"},
        },
        "pooler": {"settings": {"server_idle_timeout": 60}},
    },
    "cnpg-snapshots": {**CNPG, "cnpg": {"backup": {"snapshotClass": "csi"}}},
    "cnpg-bare": {
        **CNPG,
        "pooler": {"enabled": False},
        "cnpg": {"instances": 1, "walStorage": {"size": ""}, "backup": {"schedule": ""}},
    },
}


@pytest.fixture(scope="module")
def rendered() -> dict[str, list[Resource]]:
    return {
        f"{name}{option}": render(values, *[option][: len(option)])
        for name, values in VARIANTS.items()
        for option in ("", "--is-upgrade")
    }


@pytest.mark.parametrize("name", VARIANTS)
def test_helm_finds_nothing_to_mend(name: str) -> None:
    done = helm("lint", "--strict", str(CHART), values=VARIANTS[name])
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_published_schemas_accept_every_resource(rendered: dict[str, list[Resource]]) -> None:
    everything = [item for resources in rendered.values() for item in resources]
    assert {item["kind"] for item in everything} >= {
        "Cluster", "ScheduledBackup", "Pooler", "ServiceMonitor", "PrometheusRule",
        "Deployment", "Job", "CronJob", "NetworkPolicy", "PodDisruptionBudget",
    }  # fmt: skip
    assert problems(everything) == []


def _set(*path: str | int, to: Any) -> Callable[[Resource], None]:
    def change(resource: Resource) -> None:
        for step in path[:-1]:
            resource = resource[step]  # type: ignore[index]
        resource[path[-1]] = to  # type: ignore[index]

    return change


@pytest.mark.parametrize(
    ("kind", "name", "change", "word"),
    [
        ("Deployment", "-pooler", _set("spec", "replica", to=2), "replica"),
        ("Deployment", "-pooler", _set("spec", "replicas", to="two"), "two"),
        (
            "CronJob",
            "-drill",
            _set("spec", "jobTemplate", "spec", "template", "spec", "restartPolice", to="Never"),
            "restartPolice",
        ),
        ("NetworkPolicy", "-job", _set("spec", "egres", to=[]), "egres"),
        ("Cluster", "-db", _set("spec", "instancez", to=3), "instancez"),
        ("Cluster", "-db", _set("spec", "storage", "sise", to="1Gi"), "sise"),
        ("Cluster", "-db", _set("spec", "instances", to="three"), "instances"),
        ("Cluster", "-db", _set("spec", "instances", to=0), "instances"),
        ("Cluster", "-db", _set("spec", "postgresql", "synchronous", "method", to="all"), "all"),
        ("ScheduledBackup", "-db", _set("spec", "method", to="tape"), "tape"),
        ("ScheduledBackup", "-db", _set("spec", "shedule", to="0 0 0 * * *"), "shedule"),
        ("Pooler", "-pooler", _set("spec", "pgbouncer", "poolModus", to="session"), "poolModus"),
        ("ServiceMonitor", "-monitor", _set("spec", "endpoints", 0, "prot", to="x"), "prot"),
        (
            "PrometheusRule",
            "memory-pgrecall",
            _set("spec", "groups", 0, "rules", 0, "exprr", to="up"),
            "exprr",
        ),
    ],
)
def test_a_planted_mistake_is_found(
    rendered: dict[str, list[Resource]],
    kind: str,
    name: str,
    change: Callable[[Resource], None],
    word: str,
) -> None:
    variant = "cnpg-all" if kind in ("Cluster", "ScheduledBackup", "Pooler") else "existing-all"
    resource = copy.deepcopy(pick(rendered[variant], kind, name))
    assert problems([resource]) == []
    change(resource)
    assert any(word in problem for problem in problems([resource]))


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({}, "host"),
        ({"database": {"host": "db"}}, "backup.to"),
        ({**EXISTING, "mode": "docker"}, "mode"),
        ({**EXISTING, "pooler": {"sice": 3}}, "sice"),
        ({**EXISTING, "pooler": {"replicas": 0}}, "replicas"),
        ({**EXISTING, "backup": {"to": "ftp://backups"}}, "backup"),
        ({**EXISTING, "schedules": {"backup": "daily"}}, "backup"),
        ({**EXISTING, "backups": {}}, "backups"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(values: Mapping[str, Any], word: str) -> None:
    with pytest.raises(RuntimeError, match=word):
        render(values)


def test_the_schema_names_every_value() -> None:
    def names(schema: dict[str, Any], values: dict[str, Any], at: str = "") -> set[str]:
        missing = {f"{at}{key}" for key in values if key not in schema.get("properties", {})}
        for key, value in values.items():
            inner = schema["properties"].get(key, {})
            if isinstance(value, dict) and "properties" in inner:
                missing |= names(inner, value, f"{at}{key}.")
        return missing

    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert names(json.loads((CHART / "values.schema.json").read_text()), values) == set()


@pytest.mark.parametrize("name", VARIANTS)
def test_every_pod_is_confined(rendered: dict[str, list[Resource]], name: str) -> None:
    specifications = pods(rendered[name])
    assert specifications
    for who, pod in specifications.items():
        security = pod["securityContext"]
        assert security["runAsNonRoot"], who
        assert security["runAsUser"] > 0, who
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, who
        # A Service called pgrecall-monitor would set PGRECALL_MONITOR_PORT, which is a setting.
        assert pod["enableServiceLinks"] is False, who
        assert "-init" in who or pod["automountServiceAccountToken"] is False, who
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, who
            assert container["resources"]["limits"]["memory"], who
            mounts = {mount["name"] for mount in container["volumeMounts"]}
            assert mounts == {volume["name"] for volume in pod["volumes"]}, who


@pytest.mark.parametrize("name", VARIANTS)
def test_no_password_stands_in_a_resource(rendered: dict[str, list[Resource]], name: str) -> None:
    assert not [item for item in rendered[name] if item["kind"] == "Secret"]
    for who, pod in pods(rendered[name]).items():
        for variable in pod["containers"][0].get("env", []):
            if variable["name"].endswith("_DSN") and "value" in variable:
                words = variable["value"].split()
                passwords = [word for word in words if word.startswith("password")]
                assert passwords in ([], ["password=$(ADMIN_PASSWORD)"]), who


def test_jobs_have_a_sized_shared_memory(rendered: dict[str, list[Resource]]) -> None:
    for who, pod in pods(rendered["existing"]).items():
        if not who.startswith("Deployment"):
            volumes = {volume["name"]: volume for volume in pod["volumes"]}
            assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "256Mi"}, who
    cluster = pick(rendered["cnpg"], "Cluster")
    assert cluster["spec"]["ephemeralVolumesSizeLimit"] == {"shm": "1Gi"}


def test_migration_is_a_hook_unless_the_schema_is_made_by_the_init_job(
    rendered: dict[str, list[Resource]],
) -> None:
    hooks = {
        name: pick(rendered[name], "Job", "-migrate")["metadata"]["annotations"]["helm.sh/hook"]
        for name in VARIANTS
    }
    assert hooks["existing"] == "pre-install,pre-upgrade"
    assert hooks["existing-all"] == hooks["cnpg"] == "pre-upgrade"


def test_the_watchers_know_the_job_by_the_rules_name(rendered: dict[str, list[Resource]]) -> None:
    monitor = pick(rendered["existing-all"], "ServiceMonitor")
    (relabeling,) = monitor["spec"]["endpoints"][0]["relabelings"]
    rules = pick(rendered["existing-all"], "PrometheusRule")
    assert relabeling["targetLabel"] == "job"
    assert f'up{{job="{relabeling["replacement"]}"}}' in json.dumps(rules).replace('\\"', '"')
    dashboards = [
        json.loads(text)
        for item in rendered["existing-all"]
        if item["metadata"]["name"].split("-dashboard-")[1:]
        for text in item["data"].values()
    ]
    assert len(dashboards) == 3
    assert all(dashboard["title"] for dashboard in dashboards)


def test_rules_with_other_objectives_can_be_given(tmp_path: Any) -> None:
    rules = "groups: [{name: mine, rules: [{record: x, expr: up}]}]"
    values = {**EXISTING, "prometheusRule": {"enabled": True, "rules": rules}}
    assert pick(render(values), "PrometheusRule")["spec"]["groups"][0]["name"] == "mine"
