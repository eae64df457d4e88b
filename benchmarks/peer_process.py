"""One peer in a process of its own: reads questions as lines of JSON, answers each with a line.

It runs in the peers' environment, so it imports nothing of this project. Every peer is given the
same vectors and documents of about 1 KB, by its own client, and its own defaults.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

LIMIT = 10
BATCH = 500


class Given:
    """The vectors, and documents to go with them."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.vectors: NDArray[np.float32] = np.load(place / "vectors.npy")
        self.queries: NDArray[np.float32] = np.load(place / "queries.npy")
        projects = place / "projects.npy"
        self.projects = np.load(projects) if projects.exists() else np.zeros(len(self.vectors))

    def document(self, row: int) -> str:
        """Return a text of about 1 KB."""
        words = np.random.default_rng(row).integers(0, 999, 60)
        notes = " ".join(f"word{int(word)}" for word in words)
        perception = {"backlog_tasks": row % 60, "team_size": row % 12, "notes": notes}
        reasoning = {"decision": "create_sprint", "why": "x" * 200}
        action = {"committed_points": row % 60, "plan": "y" * 150}
        return json.dumps({"perception": perception, "reasoning": reasoning, "action": action})

    def project(self, row: int) -> str:
        return f"project-{int(self.projects[row])}"

    def batches(self) -> list[range]:
        count = len(self.vectors)
        return [range(i, min(i + BATCH, count)) for i in range(0, count, BATCH)]


class Faiss:
    """faiss: an HNSW graph in memory, with the specification's parameters."""

    packages = ("faiss-cpu",)

    def __init__(self, given: Given, _dsn: str, *, fill: bool) -> None:
        del fill
        faiss = importlib.import_module("faiss")
        self.queries = given.queries
        self.index = faiss.IndexHNSWFlat(given.vectors.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
        self.index.hnsw.efConstruction = 64
        self.index.add(given.vectors)
        faiss.omp_set_num_threads(1)

    def width(self, ef: int) -> None:
        self.index.hnsw.efSearch = ef

    def recall(self, query: int, project: str | None) -> Callable[[], list[int]]:
        del project
        row = self.queries[query : query + 1]
        return lambda: [int(i) for i in self.index.search(row, LIMIT)[1][0] if i >= 0]


class LangGraph:
    """LangGraph's PostgresStore; projects are namespaces."""

    packages = ("langgraph-checkpoint-postgres",)

    def __init__(self, given: Given, dsn: str, *, fill: bool) -> None:
        module = importlib.import_module("langgraph.store.postgres")
        base = importlib.import_module("langgraph.store.base")
        self.given = given
        index = {
            "dims": given.vectors.shape[1], "embed": self._embed, "fields": ["key"],
            "distance_type": "cosine",
        }  # fmt: skip
        self._context = module.PostgresStore.from_conn_string(dsn, index=index)
        self.store = self._context.__enter__()
        self.store.setup()
        for batch in given.batches() if fill else ():
            self.store.batch(
                [
                    base.PutOp(
                        namespace=("episodes", given.project(row)),
                        key=str(row),
                        value={"key": f"row {row}", "document": json.loads(given.document(row))},
                    )
                    for row in batch
                ]
            )
        settle(dsn)

    def _embed(self, texts: Sequence[str]) -> list[list[float]]:
        return [vector(self.given, text) for text in texts]

    def record(self, query: int) -> Callable[[], object]:
        """Store one more, whose vector is a query's."""
        value = {"key": f"query {query}", "document": json.loads(self.given.document(query))}
        return lambda: self.store.put(("episodes", "project-0"), f"new {query}", value)

    def recall(self, query: int, project: str | None) -> Callable[[], list[int]]:
        namespace = ("episodes",) if project is None else ("episodes", project)
        text = f"query {query}"
        return lambda: [
            int(item.key) for item in self.store.search(namespace, query=text, limit=LIMIT)
        ]


class LangChain:
    """LangChain's PGVectorStore; the project is a column of its own."""

    packages = ("langchain-postgres",)

    def __init__(self, given: Given, dsn: str, *, fill: bool) -> None:
        module = importlib.import_module("langchain_postgres")
        indexes = importlib.import_module("langchain_postgres.v2.indexes")
        embeddings = importlib.import_module("langchain_core.embeddings")
        psycopg = importlib.import_module("psycopg")
        parts = psycopg.conninfo.conninfo_to_dict(dsn)
        password = quote(parts.get("password", ""), safe="")
        url = (
            f"postgresql+asyncpg://{parts['user']}:{password}@/{parts['dbname']}"
            f"?host={quote(parts['host'], safe='')}&port={parts['port']}"
        )
        self.given = given

        class Lookup(embeddings.Embeddings):  # type: ignore[misc, name-defined]
            def embed_documents(self, texts: list[str]) -> list[list[float]]:
                return [vector(given, text) for text in texts]

            def embed_query(self, text: str) -> list[float]:
                return vector(given, text)

        engine = module.PGEngine.from_connection_string(url=url)
        column = module.Column("project_id", "VARCHAR")
        if fill:
            engine.init_vectorstore_table(
                "episodes", given.vectors.shape[1], metadata_columns=[column],
                id_column=module.Column("row", "VARCHAR"),
            )  # fmt: skip
        self.store = module.PGVectorStore.create_sync(
            engine=engine, embedding_service=Lookup(), table_name="episodes",
            metadata_columns=["project_id"], id_column="row", k=LIMIT,
        )  # fmt: skip
        for batch in given.batches() if fill else ():
            self.store.add_embeddings(
                texts=[given.document(row) for row in batch],
                embeddings=given.vectors[batch.start : batch.stop].tolist(),
                metadatas=[{"project_id": given.project(row)} for row in batch],
                ids=[str(row) for row in batch],
            )
        if fill:
            self.store.apply_vector_index(indexes.HNSWIndex())
            settle(dsn)

    def recall(self, query: int, project: str | None) -> Callable[[], list[int]]:
        wanted = self.given.queries[query].tolist()
        only = None if project is None else {"project_id": project}
        return lambda: [
            int(found.id)
            for found in self.store.similarity_search_by_vector(wanted, k=LIMIT, filter=only)
        ]


class Mem0:
    """mem0 on pgvector, without a language model; it takes texts, and asks for their vectors."""

    packages = ("mem0ai",)

    def __init__(self, given: Given, dsn: str, *, fill: bool) -> None:
        del fill
        os.environ["MEM0_TELEMETRY"] = "False"
        os.environ["MEM0_DIR"] = str(given.place / "mem0")
        memory = importlib.import_module("mem0").Memory
        self.given = given
        self.store = memory.from_config({
            "vector_store": {"provider": "pgvector", "config": {
                "connection_string": dsn, "collection_name": "episodes",
                "embedding_model_dims": given.vectors.shape[1],
            }},
            "embedder": {"provider": "openai", "config": {"api_key": "none"}},
            "llm": {"provider": "openai", "config": {"api_key": "none"}},
            "history_db_path": str(given.place / "mem0.db"),
        })  # fmt: skip
        self.store.embedding_model = self
        # By its own part for PostgreSQL, a batch at a time: its add() takes one text after another.
        for batch in given.batches():
            self.store.vector_store.insert(
                vectors=given.vectors[batch.start : batch.stop].tolist(),
                payloads=[{"data": given.document(row), "user_id": given.project(row)}
                          for row in batch],
                ids=[str(UUID(int=row)) for row in batch],
            )  # fmt: skip
        settle(dsn)

    def embed(self, text: str, *_: object) -> list[float]:
        """Return the vector of a text that ends in what stands for it."""
        return vector(self.given, text.rsplit("#", 1)[1])

    def record(self, query: int) -> Callable[[], object]:
        """Store one more, whose vector is a query's."""
        text = f"{self.given.document(query)}#query {query}"
        return lambda: self.store.add(text, user_id="project-0", infer=False)


class Chroma:
    """Chroma, embedded, on disk."""

    packages = ("chromadb",)

    def __init__(self, given: Given, _dsn: str, *, fill: bool) -> None:
        del fill
        chromadb = importlib.import_module("chromadb")
        config = importlib.import_module("chromadb.config")
        client = chromadb.PersistentClient(
            path=str(given.place / "chroma"), settings=config.Settings(anonymized_telemetry=False)
        )
        self.given = given
        self.collection = client.create_collection(
            "episodes", configuration={"hnsw": {"space": "cosine"}}, embedding_function=None
        )
        for batch in given.batches():
            self.collection.add(
                ids=[str(row) for row in batch],
                embeddings=given.vectors[batch.start : batch.stop],
                documents=[given.document(row) for row in batch],
                metadatas=[{"project_id": given.project(row)} for row in batch],
            )

    def record(self, query: int) -> Callable[[], object]:
        """Store one more, whose vector is a query's."""
        return lambda: self.collection.add(
            ids=[f"new {query}"], embeddings=self.given.queries[query : query + 1],
            documents=[self.given.document(query)], metadatas=[{"project_id": "project-0"}],
        )  # fmt: skip

    def recall(self, query: int, project: str | None) -> Callable[[], list[int]]:
        wanted = self.given.queries[query : query + 1]
        only = None if project is None else {"project_id": project}
        return lambda: [
            int(row)
            for row in self.collection.query(query_embeddings=wanted, n_results=LIMIT, where=only)[
                "ids"
            ][0]
        ]


PEERS: Mapping[str, Any] = {
    "faiss": Faiss, "LangGraph": LangGraph, "LangChain": LangChain, "Chroma": Chroma,
    "mem0": Mem0,
}  # fmt: skip


def settle(dsn: str) -> None:
    """Leave nothing for the server to do in the background."""
    with importlib.import_module("psycopg").connect(dsn, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")


def vector(given: Given, text: str) -> list[float]:
    """Return the vector that a text stands for, as an embedder would: a list of numbers."""
    kind, row = text.split()
    values: list[float] = (given.queries if kind == "query" else given.vectors)[int(row)].tolist()
    return values


def answer(peer: Any, question: dict[str, Any]) -> dict[str, Any]:
    """Do what was asked of a peer that is open."""
    if question["what"] == "width":
        peer.width(question["ef"])
        return {}
    if question["what"] == "record":
        call = peer.record(question["query"])
        start = time.perf_counter()
        call()
        return {"ms": (time.perf_counter() - start) * 1000}
    project = question.get("project")
    call = peer.recall(question["query"], None if project is None else f"project-{project}")
    start = time.perf_counter()
    rows = call()
    return {"ms": (time.perf_counter() - start) * 1000, "rows": rows}


def main() -> int:
    name, place = sys.argv[1:]
    answers = sys.stdout
    sys.stdout = sys.stderr  # what a peer prints is no answer
    peer: Any = None
    for line in sys.stdin:
        question = json.loads(line)
        try:
            if question["what"] == "open":
                dsn, fill = question.get("dsn", ""), question.get("fill", True)
                peer = PEERS[name](Given(Path(place)), dsn, fill=fill)
                given = {"versions": " ".join(f"{p} {version(p)}" for p in peer.packages)}
            else:
                given = answer(peer, question)
        except Exception as error:  # noqa: BLE001  # told to whoever asked
            given = {"failed": f"{type(error).__name__}: {error}".splitlines()[0]}
        answers.write(json.dumps(given) + "\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
