"""Backups in a bucket, over HTTP, against a server that speaks S3."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import boto3
import pyrage
import pytest
from moto.server import ThreadedMotoServer
from tests.integration.backup.conftest import Create, Drill, failures

from pgrecall.errors import BackupError, ConfigurationError
from pgrecall.ops import backup
from pgrecall.testing import Database


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL_S3": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    try:
        name = f"memories-{secrets.token_hex(4)}"  # the server's memory outlives it
        boto3.client("s3").create_bucket(Bucket=name)
        yield f"s3://{name}/nightly"
    finally:
        server.stop()


def name_of(bucket: str) -> str:
    return bucket.removeprefix("s3://").split("/")[0]


def test_there_and_back(
    filled: Database, create: Create, drill: Drill, bucket: str, tmp_path: Path
) -> None:
    key = pyrage.x25519.Identity.generate()
    identity = tmp_path / "key"
    identity.write_text(str(key))
    made = create(filled, location=bucket, recipients=(str(key.to_public()),)).manifest
    (entry,) = backup.list_backups(backup.open_storage(bucket))
    assert (entry.name, entry.problem) == (made.name, None)
    report = drill(filled, location=bucket, identity=identity)
    assert report.succeeded, failures(report)


def test_a_failed_dump_leaves_nothing(filled: Database, create: Create, bucket: str) -> None:
    with pytest.raises(BackupError, match="brotli"):
        create(filled, location=bucket, compress="brotli")
    assert boto3.client("s3").list_objects_v2(Bucket=name_of(bucket))["KeyCount"] == 0


def test_a_changed_object(filled: Database, create: Create, drill: Drill, bucket: str) -> None:
    made = create(filled, location=bucket).manifest
    client = boto3.client("s3")
    key = f"nightly/{made.name}/{made.memory.file}"
    data = bytearray(client.get_object(Bucket=name_of(bucket), Key=key)["Body"].read())
    data[1000] ^= 4
    client.put_object(Bucket=name_of(bucket), Key=key, Body=bytes(data))
    assert "not what was stored" in failures(drill(filled, location=bucket))["restore"]


def test_pruning(filled: Database, create: Create, bucket: str) -> None:
    made = create(filled, location=bucket).manifest
    client = boto3.client("s3")
    client.put_object(Bucket=name_of(bucket), Key="nightly/other/agent_memory.dump", Body=b"half")
    fates = {fate.name: fate for fate in backup.prune(bucket, daily=1, weekly=0, monthly=0)}
    assert fates[made.name].kept
    assert fates["other"].kept  # it may be in the making
    backup.open_storage(bucket).delete(made.name)
    assert [entry.name for entry in backup.list_backups(backup.open_storage(bucket))] == ["other"]


def test_what_is_wrong_is_said(filled: Database, create: Create, bucket: str) -> None:
    with pytest.raises(BackupError, match="s3://nowhere refused"):
        create(filled, location="s3://nowhere/x")
    with pytest.raises(ConfigurationError, match="names no bucket"):
        backup.open_storage("s3:///x")
    with pytest.raises(ConfigurationError, match="cannot go to ftp"):
        backup.open_storage("ftp://host/x")
