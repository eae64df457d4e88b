"""The command: where it listens, what it refuses, and how it ends."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from tests.integration.serving.conftest import COMMAND, Serve, Serving, environment, wait_for

from pgrecall.errors import ConfigurationError
from pgrecall.serving.server import listen


def refused(
    directory: Path, *flags: str, code: int = 2, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run the command, which must end by itself."""
    done = subprocess.run(
        [*COMMAND, *flags],
        env=environment(directory, **settings),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done


def test_it_is_for_this_machine_alone(tmp_path: Path) -> None:
    told = refused(tmp_path, "--host", "0.0.0.0", "--port", "0").stderr
    assert "error: 0.0.0.0 can be reached from other machines" in told
    assert "hint: listen on 127.0.0.1" in told


def test_the_variable_is_refused_likewise(tmp_path: Path) -> None:
    told = refused(tmp_path, "--port", "0", PGRECALL_SERVE_HOST="::").stderr
    assert ":: can be reached" in told


@pytest.mark.parametrize("host", ["0", "192.0.2.1", "::ffff:127.0.0.1", "fe80::1", "169.254.1.1"])
def test_other_addresses_than_loopback(host: str) -> None:
    with pytest.raises(ConfigurationError, match="can be reached from other machines"):
        listen(host, 0)


def test_no_address() -> None:
    with pytest.raises(ConfigurationError, match="there is no address 'no such host'"):
        listen("no such host", 0)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2"])
def test_other_addresses_of_this_machine(host: str) -> None:
    with listen(host, 0) as listening:
        assert listening.getsockname()[0] in ("127.0.0.1", "::1", "127.0.0.2")


@pytest.mark.parametrize("spec", ["none", "python:stub:silent"])
def test_an_embedder_without_vectors(tmp_path: Path, spec: str) -> None:
    told = refused(tmp_path, "--embedder", spec, "--port", "0").stderr
    assert f"the embedder '{spec}' makes no vectors, so there is nothing to serve" in told
    assert "such as builtin" in told


def test_an_embedder_that_there_is_none(tmp_path: Path) -> None:
    assert "there is no embedder 'nix'" in refused(tmp_path, "--embedder", "nix").stderr


def test_a_port_that_is_taken(stubbed: Serving, tmp_path: Path) -> None:
    port = str(urlsplit(stubbed.address).port)
    told = refused(tmp_path, "--port", port).stderr
    assert f"127.0.0.1:{port} cannot be listened on" in told
    assert "--port" in told


def test_variables_stand_for_flags(tmp_path: Path) -> None:
    command = [*COMMAND, "--json"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(tmp_path, PGRECALL_SERVE_HOST="127.0.0.3", PGRECALL_SERVE_PORT="0"),
    )  # fmt: skip
    with process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(3)]
            address = json.loads("".join(lines))["address"]
            assert address.startswith("http://127.0.0.3:")
            assert httpx.get(f"{address}/health").json()["model"] == "stub:tiny"
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_on_a_signal(serve: Serve, number: signal.Signals) -> None:
    server = serve()
    assert server.get("/health").is_success  # and its connection stays open
    server.process.send_signal(number)
    assert server.process.wait(timeout=30) == 0
    assert server.told() == ""


def test_requests_under_way_are_finished(serve: Serve) -> None:
    server = serve()
    with ThreadPoolExecutor(1) as threads:
        held = threads.submit(server.post, "/embed", {"text": "HOLD"})
        server.wait_for_work()
        server.process.send_signal(signal.SIGTERM)

        def refuses() -> bool:
            try:
                httpx.get(f"{server.address}/health")
            except httpx.ConnectError:
                return True
            return False

        wait_for(refuses, "it goes on taking requests")
        time.sleep(0.5)  # in which it would be cut off
        assert server.process.poll() is None
        server.let_go()
        answer = held.result(timeout=30)
    assert answer.status_code == 200
    assert len(answer.json()["embedding"]) == 8
    assert server.process.wait(timeout=30) == 0


def test_it_does_not_wait_for_ever(serve: Serve) -> None:
    server = serve(PGRECALL_SERVE_DRAIN="1")
    with ThreadPoolExecutor(1) as threads:
        held = threads.submit(server.post, "/embed", {"text": "HOLD"})
        server.wait_for_work()
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began >= 1
        with contextlib.suppress(httpx.HTTPError):  # it may end without an answer
            assert held.result(timeout=30).status_code >= 500
    assert "ended amid the work of requests, after 1 s" in server.told()


def test_without_the_packages() -> None:
    script = (
        "import sys\n"
        "sys.modules['fastapi'] = None\n"
        "from pgrecall.cli import main\n"
        "sys.argv = ['pgrecall', 'serve']\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "pgrecall serve needs the optional part 'http'" in done.stderr
    assert "pip install 'pgrecall[http]'" in done.stderr


@pytest.mark.parametrize("what", ["import pgrecall", "import pgrecall.cli.app"])
def test_nothing_else_loads_it(what: str) -> None:
    names = ("fastapi", "starlette", "uvicorn", "pgrecall.serving")
    script = f"{what}\nimport sys\nprint([name for name in {names!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_its_help_loads_nothing_of_it() -> None:
    script = (
        "import sys\n"
        "from pgrecall.cli import main\n"
        "sys.argv = ['pgrecall', 'serve', '--help']\n"
        "try:\n    main()\n"
        "except SystemExit as error:\n    assert not error.code\n"
        "assert not {'fastapi', 'starlette', 'uvicorn'} & {*sys.modules}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    for name in ("PGRECALL_SERVE_HOST", "PGRECALL_SERVE_PORT", "PGRECALL_EMBEDDER"):
        assert name in done.stdout
