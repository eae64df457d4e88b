"""Embedders that several threads or processes use."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
from tests.integration.embedding.conftest import Provider

FORK = textwrap.dedent("""
    import os, sys
    from pgrecall.embedding import get_embedder

    embedder = get_embedder(sys.argv[1])
    (before,) = embedder.embed(["declining velocity"])
    # As another thread may, at the moment of the fork.
    embedder._connection._slots[os.getpid()].lock.acquire()
    child = os.fork()
    if child == 0:
        (after,) = embedder.embed(["declining velocity"])
        embedder.close()
        sys.exit(0 if abs(float(before @ after) - 1) < 1e-5 else 3)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    embedder._connection._slots[os.getpid()].lock.release()
    embedder.embed(["declining velocity"])
    sys.exit(code)
""")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_has_its_own_connection(provider: Provider) -> None:
    spec = f"{provider.kind.provider}:all-minilm"
    done = subprocess.run(
        [sys.executable, "-c", FORK, spec],
        timeout=60, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    before, child, after = [asked.port for asked in provider.server.asked]
    assert before == after != child


def test_threads_share_an_embedder(provider: Provider) -> None:
    embedder = provider()
    results: dict[int, np.ndarray] = {}

    def work(number: int) -> None:
        results[number] = np.array(embedder.embed([f"sprint {number}", "backlog"]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    for number, found in results.items():
        assert np.allclose(found, np.array(embedder.embed([f"sprint {number}", "backlog"])))


def test_an_embedder_can_be_used_after_it_was_closed(provider: Provider) -> None:
    embedder = provider()
    embedder.close()
    embedder.embed(["text"])
    embedder.close()
    embedder.embed(["text"])
    assert len({asked.port for asked in provider.server.asked}) == 2
