"""LangGraph's ``BaseStore`` on pgrecall: ``pip install 'pgrecall[langgraph]'``.

``PgrecallStore`` keeps a store's items in the project of a memory; ``AsyncPgrecallStore`` is its
twin for an ``AsyncMemory``.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import (
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import Any, Literal, Self, TypeAlias, cast

from pgrecall._async.memory import AsyncMemory, AsyncProjectMemory
from pgrecall._sync.memory import Memory, ProjectMemory
from pgrecall.errors import InvalidInput, MissingExtra, PgrecallError
from pgrecall.models import Distance, NewItem
from pgrecall.models import Item as Kept

try:
    from langgraph.store.base import (
        BaseStore,
        Embeddings,
        GetOp,
        IndexConfig,
        Item,
        ListNamespacesOp,
        Op,
        PutOp,
        Result,
        SearchItem,
        SearchOp,
        TTLConfig,
        ensure_embeddings,
        get_text_at_path,
        tokenize_path,
        validate_op_namespace,
    )
    from langgraph.store.base.batch import AsyncBatchedBaseStore
except ImportError as error:
    raise MissingExtra("pgrecall.integrations.langgraph", "langgraph") from error

_log = logging.getLogger("pgrecall.langgraph")
_WHOLE = "$"
_SWEEP_MINUTES = 5.0

Index: TypeAlias = IndexConfig | Literal[False] | None
"""How values are made searchable: LangGraph's configuration; None: by the memory's embedder, if it
has one; False: not at all."""


@dataclass(frozen=True, slots=True)
class _Embed:
    """A step of a batch: texts to be embedded by the caller's model."""

    model: Embeddings
    texts: Sequence[str]


_Ask: TypeAlias = Callable[[Any], Any]
"""A step of a batch: a call on the memory's items."""
_Steps: TypeAlias = Generator[_Embed | _Ask, Any, list[Result]]


class _Rules:
    """What a store was told about texts and distances."""

    def __init__(self, index: Index, *, available: bool) -> None:
        self.config: IndexConfig | None = index or None
        self.embeddings = ensure_embeddings(index["embed"]) if index else None
        self.searches = bool(index) or (index is None and available)
        fields: Any = (index.get("fields") if index else None) or [_WHOLE]
        self.fields: list[str] = [fields] if isinstance(fields, str) else list(fields)
        distance = cast("Mapping[str, Any]", index or {}).get("distance_type", "cosine")
        self.distance: Distance = distance

    def texts(self, op: PutOp) -> Sequence[str]:
        """Return the texts that an item is to be found by."""
        if not self.searches or op.index is False or op.value is None:
            return ()
        paths = self.fields if op.index is None else op.index
        return [
            text
            for path in paths
            for text in get_text_at_path(op.value, path if path == _WHOLE else tokenize_path(path))
            if text.strip()
        ]


def _steps(ops: Sequence[Op], rules: _Rules) -> _Steps:
    """Do a batch: reads first, as of before it, then all its writes at once.

    What is to be asked is yielded, so that the same lines serve threads and tasks.
    """
    for op in ops:
        validate_op_namespace(op)
    results: list[Result] = [None] * len(ops)
    for refresh in (False, True):
        gets = {
            i: (tuple(op.namespace), str(op.key))
            for i, op in enumerate(ops)
            if isinstance(op, GetOp) and op.refresh_ttl == refresh
        }
        if gets:
            found = yield partial(_get, list(gets.values()), refresh)
            for i, key in gets.items():
                results[i] = _to_item(found[key]) if key in found else None
    searches = {i: op for i, op in enumerate(ops) if isinstance(op, SearchOp)}
    vectors = yield from _query_vectors(searches, rules)
    for i, search in searches.items():
        results[i] = yield from _search(search, rules, vectors.get(i))
    for i, op in enumerate(ops):
        if isinstance(op, ListNamespacesOp):
            results[i] = yield _listing(op)
    yield from _write([op for op in ops if isinstance(op, PutOp)], rules)
    return results


def _get(keys: Sequence[tuple[tuple[str, ...], str]], refresh: bool, items: Any) -> Any:
    return items.get(keys, refresh=refresh)


def _query_vectors(
    searches: Mapping[int, SearchOp], rules: _Rules
) -> Generator[_Embed, Any, Mapping[int, Any]]:
    """Return the vectors of the queries by the caller's model, embedded at once."""
    asking = [i for i, op in searches.items() if op.query]
    if rules.embeddings is None or not asking:
        return {}
    vectors = yield _Embed(rules.embeddings, [searches[i].query or "" for i in asking])
    return dict(zip(asking, vectors, strict=True))


def _search(op: SearchOp, rules: _Rules, vector: Any) -> Generator[_Ask, Any, list[SearchItem]]:
    options: dict[str, Any] = {
        "namespace": tuple(op.namespace_prefix),
        "where": op.filter,
        "limit": op.limit,
        "offset": op.offset,
        "refresh": op.refresh_ttl,
    }
    if not op.query or not rules.searches:
        found = yield lambda items: items.list(**options)
        return [_to_search_item(item, None) for item in found]
    wanted = {"query": op.query} if vector is None else {"embedding": vector}
    hits = yield lambda items: items.recall(**wanted, **options, distance=rules.distance)
    return [_to_search_item(hit.item, hit.score) for hit in hits]


def _listing(op: ListNamespacesOp) -> _Ask:
    kinds: dict[str, list[tuple[str, ...]]] = {"prefix": [], "suffix": []}
    for condition in op.match_conditions or ():
        if condition.match_type not in kinds:
            raise InvalidInput(
                f"match_type is {condition.match_type!r}", hint="give 'prefix' or 'suffix'"
            )
        kinds[condition.match_type].append(tuple(condition.path))
    return lambda items: items.namespaces(
        prefixes=kinds["prefix"],
        suffixes=kinds["suffix"],
        max_depth=op.max_depth,
        limit=op.limit,
        offset=op.offset,
    )


def _write(ops: Sequence[PutOp], rules: _Rules) -> Generator[_Embed | _Ask, Any, None]:
    """Put and delete; of several for one item, the last counts."""
    last = {(tuple(op.namespace), str(op.key)): op for op in ops}
    puts = {key: op for key, op in last.items() if op.value is not None}
    gone = [key for key, op in last.items() if op.value is None]
    if not last:
        return
    texts = [rules.texts(op) for op in puts.values()]
    made: Sequence[Sequence[Any]] = [()] * len(texts)
    if rules.embeddings is not None and any(texts):
        flat = iter((yield _Embed(rules.embeddings, [text for some in texts for text in some])))
        made, texts = [list(islice(flat, len(some))) for some in texts], [()] * len(texts)
    new = [
        NewItem(
            namespace=namespace,
            key=key,
            value=op.value or {},
            texts=found_by,
            vectors=vectors,
            ttl=None if op.ttl is None else timedelta(minutes=op.ttl),
        )
        for ((namespace, key), op), found_by, vectors in zip(puts.items(), texts, made, strict=True)
    ]
    yield lambda items: items.put(new, delete=gone)


def _to_item(item: Kept) -> Item:
    return Item(value=dict(item.value), key=item.key, namespace=item.namespace,
                created_at=item.created_at, updated_at=item.updated_at)  # fmt: skip


def _to_search_item(item: Kept, score: float | None) -> SearchItem:
    return SearchItem(namespace=item.namespace, key=item.key, value=dict(item.value),
                      created_at=item.created_at, updated_at=item.updated_at,
                      score=score)  # fmt: skip


def _minutes(given: float | None, ttl: TTLConfig | None) -> float:
    return float(given or (ttl or {}).get("sweep_interval_minutes") or _SWEEP_MINUTES)


def _check_project(memory: ProjectMemory | AsyncProjectMemory) -> None:
    if memory.project_id is None:
        raise InvalidInput(
            "the memory is not bound to a project", hint='give memory.project("apollo")'
        )


class PgrecallStore(BaseStore):
    """A LangGraph store whose items are in a project of a memory."""

    supports_ttl = True

    def __init__(
        self, memory: ProjectMemory, *, index: Index = None, ttl: TTLConfig | None = None
    ) -> None:
        """Make a store.

        Args:
            memory: The memory, bound to a project.
            index: How values are made searchable: by the memory's embedder unless given, by a
                model of yours (LangGraph's ``{"dims": ..., "embed": ..., "fields": [...]}``), or
                not at all (False). ``distance_type`` may be given too, as to ``PostgresStore``.
            ttl: LangGraph's configuration of how long items live, in minutes.

        Raises:
            InvalidInput: The memory is not bound to a project.
        """
        _check_project(memory)
        self.memory = memory
        self.ttl_config = ttl
        self._rules = _Rules(index, available=memory.embedder.available)
        self._sweeper: threading.Thread | None = None
        self._stop = threading.Event()

    @property
    def index_config(self) -> IndexConfig | None:
        """The model of yours that values are found by; None for the memory's own."""
        return self._rules.config

    @classmethod
    @contextmanager
    def from_conn_string(
        cls,
        conn_string: str | None = None,
        *,
        project_id: str,
        index: Index = None,
        ttl: TTLConfig | None = None,
    ) -> Iterator[PgrecallStore]:
        """Open a memory, and a store in a project of it, until the block ends.

        Args:
            conn_string: A libpq connection string or URL; what ``Memory.open()`` finds unless
                given.
            project_id: The project.
            index: As for the class.
            ttl: As for the class.
        """
        with Memory.open(conn_string) as memory:
            store = cls(memory.project(project_id), index=index, ttl=ttl)
            try:
                yield store
            finally:
                store.stop_ttl_sweeper()

    def setup(self) -> None:
        """Do nothing: ``pgrecall init`` has made the tables."""

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Do several operations: reads as of before it, then all writes, or none.

        Raises:
            InvalidNamespaceError: A label cannot be one.
            PgrecallError: The database refused something or could not be reached.
        """
        steps = _steps(list(ops), self._rules)
        answer: Any = None
        try:
            while True:
                step = steps.send(answer)
                if isinstance(step, _Embed):
                    answer = step.model.embed_documents(list(step.texts))
                else:
                    answer = step(self.memory.items)
        except StopIteration as end:
            return cast("list[Result]", end.value)

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Do the same as ``batch``, in a thread."""
        return await asyncio.to_thread(self.batch, list(ops))

    def sweep_ttl(self) -> int:
        """Delete items whose time is up; returns how many. They were not found any more before."""
        return self.memory.items.expire()

    def start_ttl_sweeper(self, sweep_interval_minutes: float | None = None) -> None:
        """Delete items whose time is up again and again, in a thread, until told to stop."""
        if self._sweeper is not None and self._sweeper.is_alive():
            return
        seconds = _minutes(sweep_interval_minutes, self.ttl_config) * 60
        self._stop.clear()
        self._sweeper = threading.Thread(
            target=self._sweep, args=(seconds,), name="pgrecall-langgraph-sweeper", daemon=True
        )
        self._sweeper.start()

    def _sweep(self, seconds: float) -> None:
        while not self._stop.wait(seconds):
            try:
                self.sweep_ttl()
            except PgrecallError as error:
                _log.warning("items whose time is up were not deleted: %s", error)

    def stop_ttl_sweeper(self, timeout: float | None = None) -> bool:
        """Stop deleting; returns whether it has stopped within so many seconds."""
        self._stop.set()
        if self._sweeper is not None:
            self._sweeper.join(timeout)
            if self._sweeper.is_alive():
                return False
            self._sweeper = None
        return True


class AsyncPgrecallStore(AsyncBatchedBaseStore):
    """The twin of ``PgrecallStore`` for an ``AsyncMemory``.

    Operations that tasks begin in the same turn of the loop are sent as one batch.
    """

    supports_ttl = True

    def __init__(
        self, memory: AsyncProjectMemory, *, index: Index = None, ttl: TTLConfig | None = None
    ) -> None:
        """Make a store, in the loop that is to use it; for the arguments see its twin."""
        _check_project(memory)
        super().__init__()
        self.memory = memory
        self.ttl_config = ttl
        self._rules = _Rules(index, available=memory.embedder.available)
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def index_config(self) -> IndexConfig | None:
        """The model of yours that values are found by; None for the memory's own."""
        return self._rules.config

    @classmethod
    @asynccontextmanager
    async def from_conn_string(
        cls,
        conn_string: str | None = None,
        *,
        project_id: str,
        index: Index = None,
        ttl: TTLConfig | None = None,
    ) -> AsyncIterator[AsyncPgrecallStore]:
        """Open a memory, and a store in a project of it, until the block ends."""
        async with await AsyncMemory.open(conn_string) as memory:
            store = cls(memory.project(project_id), index=index, ttl=ttl)
            try:
                yield store
            finally:
                await store.stop_ttl_sweeper()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop_ttl_sweeper()

    async def setup(self) -> None:
        """Do nothing: ``pgrecall init`` has made the tables."""

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Do several operations: reads as of before it, then all writes, or none.

        Raises:
            InvalidNamespaceError: A label cannot be one.
            PgrecallError: The database refused something or could not be reached.
        """
        steps = _steps(list(ops), self._rules)
        answer: Any = None
        try:
            while True:
                step = steps.send(answer)
                if isinstance(step, _Embed):
                    answer = await step.model.aembed_documents(list(step.texts))
                else:
                    answer = await step(self.memory.items)
        except StopIteration as end:
            return cast("list[Result]", end.value)

    async def sweep_ttl(self) -> int:
        """Delete items whose time is up; returns how many. They were not found any more before."""
        return await self.memory.items.expire()

    async def start_ttl_sweeper(self, sweep_interval_minutes: float | None = None) -> None:
        """Delete items whose time is up again and again, in a task, until told to stop."""
        if self._sweeper is None or self._sweeper.done():
            seconds = _minutes(sweep_interval_minutes, self.ttl_config) * 60
            self._sweeper = asyncio.create_task(self._sweep(seconds))

    async def _sweep(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.sweep_ttl()
            except PgrecallError as error:
                _log.warning("items whose time is up were not deleted: %s", error)

    async def stop_ttl_sweeper(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109
        """Stop deleting; returns whether it has stopped within so many seconds."""
        if self._sweeper is None:
            return True
        self._sweeper.cancel()
        done, _ = await asyncio.wait([self._sweeper], timeout=timeout)
        if done:
            self._sweeper = None
        return bool(done)
