"""The same vectors and documents in other memories, each by its own client in its own process.

Their packages need an environment of their own, because they want older ones than the client:
``make bench`` makes it. What a recall takes is measured in that process, so the way between the
processes is not in it.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import numpy as np
import psycopg
from psycopg import sql

from benchmarks.comparing import Measure, Part, figures, left_out, middle, take_turns
from benchmarks.stage import Accuracy, Stage, Stored, accuracy, asking, recalling

ROOT = Path(__file__).resolve().parents[1]
PEERS = {"LangGraph": 0.20, "LangChain": 0.40, "Chroma": 0.85}
"""Peers, with what part of their time an unfiltered recall may take."""

FILTERED = 0.20
PROJECT = 12
QUERIES = 256
BURST = 8
LIVES_IN_POSTGRES = ("LangGraph", "LangChain", "mem0")


class Left(Exception):
    """A peer is left out; the text says why."""


class Peer:
    """Another memory, in a process of its own that answers one line for each."""

    def __init__(self, python: Path, name: str, place: Path, **options: Any) -> None:
        if not python.exists():
            raise Left(f"there is no {python}; make bench installs the peers")
        self._errors = (place / "errors").open("w+", encoding="utf-8")
        self._process = subprocess.Popen(
            [str(python), "-m", "benchmarks.peer_process", name, str(place)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
            cwd=ROOT,
        )  # fmt: skip
        try:
            self.versions = str(self.ask("open", **options)["versions"])
        except Left:
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def ask(self, what: str, **options: Any) -> Mapping[str, Any]:
        """Have something done, and return the answer.

        Raises:
            Left: It could not be done.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"what": what, **options}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer: dict[str, Any] = json.loads(line) if line else {"failed": self._last_error()}
        if "failed" in answer:
            raise Left(answer["failed"])
        return answer

    def _last_error(self) -> str:
        self._process.wait(timeout=30)
        self._errors.seek(0)
        return (self._errors.read().strip().splitlines() or ["its process ended"])[-1]

    def recall(self, i: int) -> float:
        """Recall for a query, and return the milliseconds it took in its process."""
        return float(self.ask("recall", query=i % QUERIES)["ms"])

    def record(self, i: int) -> float:
        """Store one more, and return the milliseconds it took in its process."""
        return float(self.ask("record", query=i)["ms"])

    def filtered(self, i: int) -> float:
        """Recall in one project."""
        return float(self.ask("recall", query=i % QUERIES, project=PROJECT)["ms"])

    def found(self, i: int, ids: Sequence[UUID], project: int | None = None) -> set[UUID]:
        """Return what a recall finds."""
        options = {} if project is None else {"project": project}
        return {ids[row] for row in self.ask("recall", query=i % QUERIES, **options)["rows"]}


def found_by(
    peer: Peer, ids: Sequence[UUID], truth: Sequence[set[UUID]], project: int | None = None
) -> Accuracy:
    """Return what the peer finds of the truth."""
    return accuracy(lambda i: peer.found(i, ids, project), truth)


def peers(stage: Stage, rows: int, rounds: int, python: Path) -> Part:
    """Compare recalls without a filter, and in a project with 1 % of the episodes."""
    measures: list[Measure] = []
    facts: dict[str, Any] = {}
    best: tuple[float, Measure] | None = None
    with stage.filled(rows) as stored:
        place = stage.folder / "peers"
        place.mkdir()
        queries = stored.world.vectors(QUERIES, queries=True)
        np.save(place / "vectors.npy", stored.vectors)
        np.save(place / "projects.npy", stored.projects)
        np.save(place / "queries.npy", queries)
        for name, target in PEERS.items():
            try:
                mine, fact, speed = _compare(stage, stored, name, target, rounds, python)
            except Left as reason:
                measures += [
                    left_out(f"recall / {name}{what}: p50", str(reason))
                    for what in ("", ", filtered to 1 %")
                ]
                continue
            measures += mine
            facts[name] = fact
            if best is None or speed < best[0]:
                best = speed, mine[1]
    if best is not None:
        _, one = best
        measures.append(
            Measure(name="filtered recall / best peer: p50", value=one.value, lowest=one.lowest,
                    highest=one.highest, target=FILTERED, note=one.name)
        )  # fmt: skip
    return Part(name="peers", measures=measures, facts=facts and {"rows": rows, "peers": facts})


def _compare(
    stage: Stage, stored: Stored, name: str, target: float, rounds: int, python: Path
) -> tuple[list[Measure], dict[str, Any], float]:
    """Return the comparisons with one peer, and the median of its filtered recalls."""
    place = stage.folder / "peers"
    defaults: list[Measure] = []
    fact: dict[str, Any] = {}
    options: dict[str, Any] = {}
    if name in LIVES_IN_POSTGRES:
        options = {"dsn": new_database(stage, name), "fill": False}
        with Peer(python, name, place, dsn=options["dsn"]) as peer:
            measure, fact["at its defaults"] = _pair(stored, peer, name, rounds)
        defaults = [replace(measure, name=f"recall / {name} at its defaults: p50")]
        # It would find less at pgvector's own default, so it is given what ours has.
        with psycopg.connect(options["dsn"], autocommit=True) as admin:
            admin.execute(
                sql.SQL("ALTER DATABASE {} SET hnsw.ef_search = 100").format(
                    sql.Identifier(admin.info.dbname)
                )
            )
    with Peer(python, name, place, **options) as peer:
        plain, fact["no filter"] = _pair(stored, peer, name, rounds, target=target)
        filtered, fact["filtered"] = _pair(stored, peer, name, rounds, project=PROJECT)
        fact["versions"] = peer.versions
    return [plain, filtered, *defaults], fact, float(fact["filtered"]["peer"]["p50"])


def _pair(
    stored: Stored,
    peer: Peer,
    name: str,
    rounds: int,
    *,
    target: float | None = None,
    project: int | None = None,
) -> tuple[Measure, dict[str, Any]]:
    """Compare recalls of a peer with ours, of one project or of all."""
    queries = stored.world.vectors(QUERIES, queries=True)
    rows = None if project is None else stored.projects == project
    truth = stored.nearest(queries, rows)
    only = {} if project is None else {"project_id": f"project-{project}"}
    what = "" if project is None else ", filtered to 1 %"
    with stored.client() as memory:
        seen = {
            "ours": accuracy(asking(memory, queries, **only), truth),
            "peer": found_by(peer, stored.ids, truth, project),
        }
        taken = take_turns(
            {
                "ours": recalling(memory, queries, **only),
                "peer": peer.recall if project is None else peer.filtered,
            },
            rounds, warm_up=QUERIES, seconds=60, burst=BURST,
        )  # fmt: skip
    note = f"recall {seen['ours'].recall:.4f} and {seen['peer'].recall:.4f}"
    return middle(f"recall / {name}{what}: p50", taken["ours"], taken["peer"], target, note), {
        who: {**figures(taken[who]), "recall": seen[who].recall, "short": seen[who].short}
        for who in ("ours", "peer")
    }


def new_database(stage: Stage, name: str) -> str:
    """Make a database for a peer on the same server, and return its connection string."""
    database = f"peer_{name.lower()}"
    with psycopg.connect(stage.template.admin_dsn, autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(database))
        )
    dsn = psycopg.conninfo.make_conninfo(stage.template.admin_dsn, dbname=database)
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("CREATE EXTENSION vector")
    return dsn
