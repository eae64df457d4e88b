"""Runs the pods of the chart on this machine, as a kubelet would, as far as processes can tell.

A pod's process gets its own mount namespace: the root file system read-only, its volumes at their
mount paths, ``/etc/passwd`` with the image's user and ``/etc/hosts`` with the Services. It runs
under the pod's user id, without capabilities. What is not like a cluster: one network, no limits
of memory or processor, and the checkout's own interpreter in the place of the image.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
from tests.deploy.chart import NAMESPACE, ROOT, Resource, pods

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
PROGRAMS = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
COVERED = (Path("/mnt"), Path("/run"), Path("/tmp"))
"""Directories that a pod sees empty, apart from what is mounted in them."""


NEEDED = (ROOT, Path(sys.prefix), Path(sys.base_prefix))
"""What stands in the place of the image; it may lie in a directory that is closed to others."""


def _can_confine() -> bool:
    if shutil.which("unshare") is None or shutil.which("setpriv") is None:
        return False
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


needs_confinement = pytest.mark.skipif(
    not _can_confine(),
    reason="needs unshare and setpriv (util-linux), and the right to make a mount namespace",
)

_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


@dataclass
class Namespace:
    """What the pods of a namespace share.

    Attributes:
        place: Directory for volumes; every user may pass through it.
        claims: Directory of each PersistentVolumeClaim.
        api: Port of the Kubernetes API, if there is one.
    """

    place: Path
    resources: list[Resource] = field(default_factory=list)
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    claims: dict[str, Path] = field(default_factory=dict)
    api: int = 0

    def run(self, name: str) -> subprocess.CompletedProcess[str]:
        """Run the only container of a Job or CronJob to its end, such as ``Job/memory-init``."""
        return self.run_pod(pods(self.resources)[name])

    def run_pod(self, pod: Resource) -> subprocess.CompletedProcess[str]:
        """Run the only container of a pod to its end."""
        with self._volumes(pod) as volumes:
            return subprocess.run(
                self._command(pod, volumes),
                env=self._environment(pod),
                capture_output=True,
                text=True,
                timeout=240,
                check=False,
            )

    @contextlib.contextmanager
    def running(self, name: str) -> Iterator[subprocess.Popen[str]]:
        """Run the container of a Deployment, and end it as a kubelet would: with SIGTERM."""
        pod = pods(self.resources)[name]
        with self._volumes(pod) as volumes:
            process = subprocess.Popen(
                self._command(pod, volumes),
                env=self._environment(pod),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            try:
                yield process
            finally:
                process.terminate()
                try:
                    process.communicate(timeout=20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.communicate()

    def _environment(self, pod: Resource) -> dict[str, str]:
        (container,) = pod["containers"]
        found = {
            "PATH": PROGRAMS,
            "PYTHONDONTWRITEBYTECODE": "1",
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self.api),
        }
        for source in container.get("envFrom", []):
            found |= self.secrets[source["secretRef"]["name"]]
        for variable in container.get("env", []):
            if "valueFrom" in variable:
                key = variable["valueFrom"]["secretKeyRef"]
                value = self.secrets[key["name"]][key["key"]]
            else:
                value = re.sub(r"\$\((\w+)\)", lambda match: found[match[1]], variable["value"])
            found[variable["name"]] = value
        return found

    @contextlib.contextmanager
    def _volumes(self, pod: Resource) -> Iterator[Path]:
        """Make the pod's volumes, each a directory named after it."""
        directory = Path(tempfile.mkdtemp(dir=self.place))
        directory.chmod(0o755)
        user = pod["securityContext"]["runAsUser"]
        try:
            for volume in pod.get("volumes", []):
                self._fill(directory / volume["name"], volume, user)
            yield directory
        finally:
            shutil.rmtree(directory)

    def _fill(self, target: Path, volume: Resource, user: int) -> None:
        if claim := volume.get("persistentVolumeClaim"):
            target.symlink_to(self.claims[claim["claimName"]])
            os.chown(self.claims[claim["claimName"]], user, user)
            return
        target.mkdir()
        os.chown(target, user, user)
        sources = volume.get("projected", {}).get("sources", [volume])
        for source in sources:
            for name, text in self._files(source).items():
                (target / name).write_text(text)
                (target / name).chmod(0o440)
                os.chown(target / name, 0, user)

    def _files(self, source: Resource) -> dict[str, str]:
        if "secret" in source:
            one = source["secret"]
            values = self.secrets[one.get("secretName") or one["name"]]
        elif "configMap" in source:
            one = source["configMap"]
            (values,) = (
                item["data"]
                for item in self.resources
                if item["kind"] == "ConfigMap" and item["metadata"]["name"] == one["name"]
            )
        else:
            return {}
        if "items" in one:
            return {item["path"]: values[item["key"]] for item in one["items"]}
        return dict(values)

    def _command(self, pod: Resource, volumes: Path) -> list[str]:
        (container,) = pod["containers"]
        user = pod["securityContext"]["runAsUser"]
        script = "\n".join(self._mounts(pod, volumes, user))
        confined = [
            "setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups",
            "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all",
        ]  # fmt: skip
        script += f"\nexec {shlex.join([*confined, *container['command']])}\n"
        return ["unshare", "--mount", "sh", "-euc", script]

    def _mounts(self, pod: Resource, volumes: Path, user: int) -> Iterator[str]:
        closed = {place for path in NEEDED for place in closed_directory(path)}
        covered = [
            *COVERED,
            *(path for path in closed if not any(path.is_relative_to(cover) for cover in COVERED)),
        ]
        needed = [part for path in NEEDED for part in ([path] if is_open(path) else path.iterdir())]
        hidden = [
            path
            for path in needed
            if path.is_dir() and any(path.is_relative_to(cover) for cover in covered)
        ]
        (volumes / ".kept").mkdir()
        kept = {path: volumes / ".kept" / str(number) for number, path in enumerate(hidden)}
        for path, copy in kept.items():
            yield f"mkdir {copy}; mount --rbind {path} {copy}"
        for cover in covered:
            yield f"mount -t tmpfs -o mode=0755 tmpfs {cover}"
        yield from self._files_of_the_pod(volumes, user)
        by_name = {volume["name"]: volume for volume in pod.get("volumes", [])}
        mounts = sorted(pod["containers"][0].get("volumeMounts", []), key=lambda m: m["mountPath"])
        for mount in mounts:
            path, source = mount["mountPath"], volumes / mount["name"]
            memory = by_name[mount["name"]].get("emptyDir", {}).get("medium") == "Memory"
            if not Path(path).is_dir() or path.startswith("/mnt"):
                yield f"mkdir -p {path}"
            if memory:
                size = number(by_name[mount["name"]]["emptyDir"]["sizeLimit"])
                yield f"mount -t tmpfs -o size={size},mode=1777 tmpfs {path}"
                continue
            yield f"mount --bind $(readlink -f {source}) {path}"
            if mount.get("readOnly"):
                yield f"mount -o remount,bind,ro {path}"
        # Last, since a volume may have been mounted above them, such as the pod's own /tmp.
        for path, copy in kept.items():
            yield f"mkdir -p {path}; mount --rbind {copy} {path}"
        yield "for path in / /mnt /run; do mount -o remount,bind,ro $path; done"

    def _files_of_the_pod(self, volumes: Path, user: int) -> Iterator[str]:
        services = [
            item["metadata"]["name"] for item in self.resources if item["kind"] == "Service"
        ]
        names = [*services, *(f"{name}.{NAMESPACE}.svc" for name in services)]
        texts = {
            "hosts": f"127.0.0.1 localhost {' '.join(names)}\n",
            "passwd": f"root:x:0:0::/:/bin/sh\npgrecall:x:{user}:{user}::/tmp:/bin/sh\n",
        }
        for name, text in texts.items():
            (volumes / name).write_text(text)
            yield f"mount --bind {volumes / name} /etc/{name}"
        account = self.place / "account"
        if account.is_dir():
            yield f"mkdir -p {ACCOUNT}; mount --bind {account} {ACCOUNT}"


def is_open(directory: Path) -> bool:
    """Whether any user may enter a directory."""
    return bool(directory.stat().st_mode & 0o001)


def closed_directory(path: Path) -> list[Path]:
    """Return the first directory on the way to ``path`` that is not open, if any."""
    return [place for place in (*reversed(path.parents), path) if not is_open(place)][:1]


def number(quantity: str) -> int:
    """Return the bytes of a quantity such as ``256Mi``."""
    return int(quantity[:-2]) * _UNITS[quantity[-2:]]


@contextlib.contextmanager
def namespace() -> Iterator[Namespace]:
    """Give an empty namespace. Its directory is not in /tmp, since pods have their own."""
    place = Path(tempfile.mkdtemp(prefix="pgrecall-pods-", dir="/var/tmp"))
    place.chmod(0o755)
    try:
        yield Namespace(place)
    finally:
        shutil.rmtree(place)


@contextlib.contextmanager
def kubernetes_api(space: Namespace) -> Iterator[list[str]]:
    """Serve the part of the Kubernetes API that the init Job needs: Secrets, behind its Role.

    Yields what was done, such as ``create memory-dsn``.
    """
    account = space.place / "account"
    account.mkdir()
    key = space.place / "api.key"
    certify = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=api "
        f"-addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {account / 'ca.crt'}"
    )
    subprocess.run(certify.split(), check=True, capture_output=True)
    (account / "token").write_text("secret-token")
    (account / "namespace").write_text(NAMESPACE)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Api)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(account / "ca.crt", key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    done: list[str] = []
    vars(server).update(space=space, done=done)
    space.api = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield done
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Api(BaseHTTPRequestHandler):
    def _answer(self) -> None:
        served = cast("Any", self.server)
        space: Namespace = served.space
        parts = self.path.strip("/").split("/")
        name = parts[5] if len(parts) > 5 else None
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        verb = {"GET": "get", "POST": "create", "PATCH": "patch"}[self.command]
        if self.headers["Authorization"] != "Bearer secret-token":
            return self._reply(401)
        if parts[:5] != ["api", "v1", "namespaces", NAMESPACE, "secrets"]:
            return self._reply(404)
        if not _allowed(space.resources, verb, name):
            return self._reply(403)
        name = name or body["metadata"]["name"]
        served.done.append(f"{verb} {name}")
        if verb == "create":
            if name in space.secrets:
                return self._reply(409)
            space.secrets[name] = body["stringData"]
            return self._reply(201)
        if name not in space.secrets:
            return self._reply(404)
        if verb == "patch":
            if self.headers["Content-Type"] != "application/merge-patch+json":
                return self._reply(415)
            space.secrets[name] |= body["stringData"]
        return self._reply(200)

    do_GET = do_POST = do_PATCH = _answer  # noqa: N815

    def _reply(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        """Say nothing."""


def _allowed(resources: Sequence[Resource], verb: str, name: str | None) -> bool:
    rules: list[Mapping[str, Any]] = [
        rule for item in resources if item["kind"] == "Role" for rule in item["rules"]
    ]
    return any(
        verb in rule["verbs"]
        and "secrets" in rule["resources"]
        and ("resourceNames" not in rule or name in rule["resourceNames"])
        for rule in rules
    )
