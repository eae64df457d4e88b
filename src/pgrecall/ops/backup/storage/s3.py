"""Backups in a bucket of an S3-compatible store, by boto3 and its own settings and retries."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, BinaryIO, cast

from pgrecall.errors import BackupError, ConfigurationError, MissingExtra
from pgrecall.ops.backup.manifest import FILE

_BATCH = 1000
"""The most keys that one request deletes."""


class Bucket:
    """Backups in a bucket.

    Credentials, region and endpoint come from boto3's own environment and files, such as
    ``AWS_ACCESS_KEY_ID`` and ``AWS_ENDPOINT_URL_S3``.

    Args:
        bucket: Name of the bucket.
        prefix: What all keys begin with.

    Raises:
        MissingExtra: boto3 is not installed.
        ConfigurationError: The bucket has no name.
    """

    def __init__(self, bucket: str, prefix: str) -> None:
        try:
            import boto3
        except ImportError as error:
            raise MissingExtra("keeping backups in S3", "s3") from error
        if not bucket:
            raise ConfigurationError("s3:// names no bucket", hint="write s3://BUCKET/PREFIX")
        self._bucket = bucket
        self._prefix = prefix.strip("/")
        with self._explained():
            self._client: Any = boto3.client("s3")

    @property
    def address(self) -> str:
        """The URL."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def folders(self) -> Iterator[str]:
        """Give the names of all folders, sorted."""
        start = f"{self._prefix}/" if self._prefix else ""
        with self._explained():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=start, Delimiter="/"
            )
            names = [
                entry["Prefix"].removeprefix(start).rstrip("/")
                for page in pages
                for entry in page.get("CommonPrefixes", ())
            ]
        yield from sorted(names)

    def changed(self, folder: str) -> datetime:
        """Return when something was last written to a folder."""
        return cast("datetime", max(entry["LastModified"] for entry in self._objects(folder)))

    def read(self, folder: str, file: str) -> bytes | None:
        """Return a small file whole; None when there is none."""
        if self.size(folder, file) is None:
            return None
        with self.open_read(folder, file) as stream:
            return stream.read()

    def size(self, folder: str, file: str) -> int | None:
        """Return a file's length; None when there is none."""
        key = self._key(folder, file)
        sizes = {entry["Key"]: entry["Size"] for entry in self._objects(folder)}
        return sizes.get(key)

    @contextmanager
    def open_read(self, folder: str, file: str) -> Iterator[BinaryIO]:
        """Open a file for reading from its start."""
        with self._explained():
            answer = self._client.get_object(Bucket=self._bucket, Key=self._key(folder, file))
            body = answer["Body"]
            try:
                yield body
            finally:
                body.close()

    @contextmanager
    def open_write(self, folder: str, file: str) -> Iterator[BinaryIO]:
        """Open a new file. It is there, durably, when the block ends well, else it is not."""
        key = self._key(folder, file)
        reading, writing = os.pipe()
        upload = _Upload(self._client, self._bucket, key, reading)
        upload.start()
        stream = os.fdopen(writing, "wb")
        try:
            yield stream
        except BaseException:
            # The end of the stream would complete the upload: half a file, which goes again.
            upload.unwanted = True
            _close(stream)
            upload.join()
            if upload.error is None:
                self._client.delete_object(Bucket=self._bucket, Key=key)
            elif isinstance(upload.error, Exception):
                with self._explained():
                    raise upload.error from None
            raise
        _close(stream)
        upload.join()
        if upload.error is not None:
            with self._explained():
                raise upload.error

    def path(self, folder: str, file: str) -> None:
        """Return None: a bucket's files have no path here."""
        del folder, file

    def delete(self, folder: str) -> None:
        """Delete a folder with its files, the manifest first."""
        with self._explained():
            self._client.delete_object(Bucket=self._bucket, Key=self._key(folder, FILE))
            keys = [{"Key": entry["Key"]} for entry in self._objects(folder)]
            for start in range(0, len(keys), _BATCH):
                answer = self._client.delete_objects(
                    Bucket=self._bucket, Delete={"Objects": keys[start : start + _BATCH]}
                )
                for problem in answer.get("Errors", ()):
                    raise BackupError(f"cannot delete {problem['Key']}: {problem['Message']}")

    def _objects(self, folder: str) -> list[dict[str, Any]]:
        with self._explained():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._key(folder, "")
            )
            return [entry for page in pages for entry in page.get("Contents", ())]

    def _key(self, folder: str, file: str) -> str:
        return "/".join([*([self._prefix] if self._prefix else []), folder, file])

    @contextmanager
    def _explained(self) -> Iterator[None]:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (Boto3Error, BotoCoreError, ClientError) as error:
            raise BackupError(
                f"s3://{self._bucket} refused: {error}",
                hint="check the bucket's name, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, "
                "AWS_REGION and, for a store other than Amazon's, AWS_ENDPOINT_URL_S3",
            ) from error


class _Upload(threading.Thread):
    """Sends what comes out of a pipe, in parts, while it is written."""

    def __init__(self, client: Any, bucket: str, key: str, reading: int) -> None:
        super().__init__(name=f"upload {key}", daemon=True)
        self._arguments = (client, bucket, key)
        self._reading = reading
        self.unwanted = False
        self.error: BaseException | None = None

    def run(self) -> None:
        """Send until the writer closes; an error ends the writer's writes as a broken pipe."""
        client, bucket, key = self._arguments
        with os.fdopen(self._reading, "rb") as stream:
            try:
                client.upload_fileobj(stream, bucket, key)
            except Exception as error:  # noqa: BLE001 - raised again where the writer waits
                self.error = error


def _close(stream: BinaryIO) -> None:
    with suppress(BrokenPipeError):  # the upload failed, and its own error is on the way
        stream.close()
