"""Provision the memory, then put its connection strings and the pooler's users into Secrets.

Run by the init Job. It can be repeated: Secrets that are there are left as they are. Passwords go
from files in the pod's own /tmp to the Kubernetes API, and into no log and no argument.
"""
# ruff: noqa: D103, INP001, S603, S607, T201

import json
import os
import ssl
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
ROLES = ("app", "owner", "readonly", "monitor", "backup")
POOLER = Path("/tmp/pooler")  # noqa: S108  # the pod's own


def main() -> int:
    reset = os.environ["RESET_PASSWORDS"] == "true"
    names = {"dsn": os.environ["DSN_SECRET"], "users": os.environ["USERS_SECRET"]}
    print(pgrecall("init", *(["--reset-passwords"] if reset else [])), end="")
    if reset or not exists(names["dsn"]):
        put(names["dsn"], {role: connection_string(role) for role in ROLES})
    if names["users"] and (reset or not exists(names["users"])):
        # Where the Secret is missing nobody has the password, so that a new one harms nobody.
        options = ["--unchecked", "--pgbouncer-version", os.environ["PGBOUNCER_VERSION"]]
        pgrecall("pooler", "config", str(POOLER), "--reset-password", *options)
        put(names["users"], {"userlist.txt": (POOLER / "userlist.txt").read_text()})
    return 0


def connection_string(role: str) -> str:
    """Return a role's connection string; agents' leads through the pooler, if there is one."""
    dsn = pgrecall("dsn", "--role", role).strip()
    pooler = os.environ["POOLER"]
    if role != "app" or not pooler:
        return dsn
    # How the server is reached, TLS above all, says nothing about the pooler.
    parts = urllib.parse.urlsplit(dsn)
    place = f"{parts.netloc.rpartition('@')[0]}@{pooler}"
    return urllib.parse.urlunsplit(
        parts._replace(netloc=place, query=f"sslmode={os.environ['POOLER_SSLMODE']}")
    )


def pgrecall(*arguments: str) -> str:
    """Run a command, whose errors go to the log, and return what it printed."""
    done = subprocess.run(["pgrecall", *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"pgrecall {arguments[0]} ended with {done.returncode}")
    return done.stdout


def exists(secret: str) -> bool:
    try:
        call("GET", secret)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return False
        raise
    return True


def put(secret: str, values: dict[str, str]) -> None:
    """Create the Secret, or give it these values."""
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": secret},
        "stringData": values,
    }
    if exists(secret):
        call("PATCH", secret, body)
    else:
        call("POST", "", body)
    print(f"Secret {secret} has the keys {', '.join(values)}")


def call(method: str, secret: str, body: object = None) -> None:
    """Call the Kubernetes API as the pod's service account."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    namespace = (ACCOUNT / "namespace").read_text().strip()
    kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
    place = f"[{host}]" if ":" in host else host
    request = urllib.request.Request(  # noqa: S310  # always https
        f"https://{place}:{port}/api/v1/namespaces/{namespace}/secrets/{secret}".rstrip("/"),
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Authorization": f"Bearer {(ACCOUNT / 'token').read_text().strip()}",
            "Content-Type": kind,
        },
    )
    context = ssl.create_default_context(cafile=ACCOUNT / "ca.crt")
    urllib.request.urlopen(request, timeout=30, context=context).close()  # noqa: S310


if __name__ == "__main__":
    sys.exit(main())
