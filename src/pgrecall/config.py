"""Settings: one class, read from the environment; every command-line flag has one here.

``PGRECALL_<FIELD>`` sets a field. What is not set falls back to the defaults below, then to
what ``pgrecall init`` wrote into the configuration directory.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import platformdirs
from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from pgrecall.errors import ConfigurationError


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)]


def default_data_dir() -> Path:
    """Return the embedded server's directory of this user.

    Root's home is closed to others (0700), and PostgreSQL runs as another user: hence /var/lib.
    """
    if os.geteuid() == 0 and "XDG_DATA_HOME" not in os.environ:
        return Path("/var/lib/pgrecall")
    return Path(platformdirs.user_data_dir("pgrecall"))


class Settings(BaseSettings):
    """All settings of pgrecall.

    Passwords may stand in the DSNs, so these are secrets: they never show in ``repr`` or logs.
    """

    model_config = SettingsConfigDict(env_prefix="PGRECALL_", env_ignore_empty=True, extra="ignore")

    dsn: SecretStr | None = Field(
        None, description="Connection string of the application role; a pooler is fine."
    )
    owner_dsn: SecretStr | None = Field(
        None, description="Connection string of the owner role, for migrations."
    )
    direct_dsn: SecretStr | None = Field(
        None, description="Connection string that bypasses a pooler."
    )
    monitor_dsn: SecretStr | None = Field(
        None, description="Connection string of the monitor role, for `pgrecall monitor`."
    )
    backup_dsn: SecretStr | None = Field(
        None, description="Connection string of the backup role, past a pooler."
    )
    backups: str | None = Field(
        None,
        description="Where backups go: a directory or `s3://BUCKET/PREFIX`; `data_dir` with "
        "`-backups` behind it unless given.",
    )
    backup_recipients: str | None = Field(
        None, description="age public keys that backups are encrypted to, with commas between."
    )
    backup_identity: Path | None = Field(
        None, description="File with the age private key, to verify and restore backups."
    )
    data_dir: Path = Field(
        default_factory=default_data_dir,
        description="Directory of the embedded server.",
    )
    config_dir: Path = Field(
        default_factory=lambda: Path(platformdirs.user_config_dir("pgrecall")),
        description="Directory of the service and password files that `init` writes.",
    )
    embedder: str | None = Field(
        None,
        description="`builtin`, `none`, `ollama:MODEL`, `openai:MODEL`, "
        "`sentence-transformers:MODEL` or `python:MODULE:FACTORY`.",
    )
    embed_timeout: float = Field(
        30.0,
        gt=0,
        description="Seconds that a request to an embedder's server may take, repeats included.",
    )
    embed_attempts: int = Field(
        3, ge=1, description="Times that such a request is tried before it fails."
    )
    renderer: str | None = Field(
        None,
        description="What makes the texts of episodes that are embedded, `python:MODULE:FUNCTION`.",
    )
    embed: Literal["now", "later"] = Field(
        "now", description="Whether what is recorded is embedded at once, or by a worker later."
    )
    pg_bin: Path | None = Field(
        None, description="Directory of the binaries of a PostgreSQL to embed instead."
    )
    database: str = Field("agent_memory", description="Name of the database.")
    pool_min_size: int = Field(1, ge=0, description="Connections kept open by a client.")
    pool_max_size: int = Field(
        8,
        ge=1,
        description="Most connections of a client's pool; beyond 1, one more writes its metrics.",
    )
    connect_timeout: float = Field(
        10.0, gt=0, description="Seconds to wait for a connection before giving up."
    )
    answer_timeout: float = Field(
        300.0,
        ge=0,
        description="Seconds that a client waits for a silent server amid a call. 0: forever.",
    )
    metrics: bool = Field(True, description="Record each operation in agent_memory_metrics.")
    metrics_keep_days: float = Field(
        30.0, ge=0, description="Days that metrics are kept; clients delete older ones. 0: forever."
    )
    recall_sample_rate: float = Field(
        0.01, ge=0, le=1, description="Share of recalls whose queries are checked exactly later."
    )
    max_document_bytes: int = Field(
        1_048_576, gt=0, description="Largest JSON document accepted, in bytes."
    )
    prometheus: bool = Field(
        False, description="Count operations in the Prometheus registry of the client's process."
    )
    prometheus_projects: int = Field(
        0, ge=0, description="Projects that get a label of their own there; the rest are `other`."
    )
    prometheus_port: int | None = Field(
        None, ge=1, le=65_535, description="Port at which the client serves them itself."
    )
    prometheus_host: str = Field("127.0.0.1", description="Address at which it does.")
    traces: bool = Field(
        False, description="Open an OpenTelemetry span around each operation of a client."
    )
    serve_memory: bool | None = Field(
        None,
        description="Whether `pgrecall serve` serves the memory, or embeddings alone; the memory "
        "where a database is configured, unless given.",
    )
    serve_host: str = Field(
        "127.0.0.1",
        description="Address that `pgrecall serve` listens on; beyond this machine with keys only.",
    )
    serve_allowed_hosts: str | None = Field(
        None,
        description="Names by which it may be asked, with commas between; `*` for any. Loopback "
        "addresses unless given; any, where it listens beyond this machine.",
    )
    serve_port: int = Field(
        8750, ge=0, le=65_535, description="Port at which it does; 0 takes a free one."
    )
    serve_max_body_bytes: int = Field(
        4_194_304, gt=0, description="Most bytes of a request's body there."
    )
    serve_max_texts: int = Field(2048, gt=0, description="Most texts of a request there.")
    serve_max_characters: int = Field(
        100_000, gt=0, description="Most characters of a text there; models read far fewer."
    )
    serve_max_concurrency: int = Field(
        4, gt=0, description="Requests that are embedded there at once; others wait."
    )
    serve_wait: float = Field(
        10.0, gt=0, description="Seconds that they wait before they are told to come later."
    )
    serve_timeout: float = Field(
        120.0, gt=0, description="Seconds that embedding the texts of a request there may take."
    )
    serve_request_timeout: float = Field(
        60.0, gt=0, description="Seconds that a request there may take; streams are not limited."
    )
    serve_max_requests: int = Field(
        512, gt=0, description="Requests under way there at once; others are told to come later."
    )
    serve_drain: int = Field(
        20, ge=0, description="Seconds in which `pgrecall serve` finishes requests when it ends."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="How long-running commands write their log: `text` or `json`."
    )
    log_level: LogLevel = Field(
        "INFO", description="From which level on: `DEBUG`, `INFO`, `WARNING` or `ERROR`."
    )

    @cached_property
    def service_file(self) -> Path:
        """The libpq service file that `init` writes (mode 0600)."""
        return self.config_dir / "pg_service.conf"

    @cached_property
    def backup_location(self) -> str:
        """Where backups go and are looked for."""
        if self.backups is not None:
            return self.backups
        directory = self.data_dir.expanduser().absolute()
        return str(directory.with_name(f"{directory.name}-backups"))

    @cached_property
    def recipients(self) -> tuple[str, ...]:
        """The age public keys that backups are encrypted to."""
        keys = (self.backup_recipients or "").split(",")
        return tuple(key.strip() for key in keys if key.strip())

    @cached_property
    def password_file(self) -> Path:
        """The libpq password file that `init` writes (mode 0600)."""
        return self.config_dir / "pgpass"


def load_settings(**overrides: object) -> Settings:
    """Read the settings from the environment; ``overrides`` that are not None win.

    Raises:
        ConfigurationError: A variable holds a value that its setting does not take.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        problems = "; ".join(
            f"PGRECALL_{'_'.join(str(part) for part in item['loc']).upper()}: {item['msg']}"
            for item in error.errors(include_input=False, include_url=False)
        )
        raise ConfigurationError(
            f"invalid setting: {problems}", hint="correct the environment variable or flag"
        ) from None
