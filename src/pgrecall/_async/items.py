"""Items: documents kept by key in namespaces, as agent frameworks know them from their stores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pgvector import Vector
from psycopg import AsyncConnection
from psycopg.rows import tuple_row

from pgrecall._async.scope import AsyncScope
from pgrecall.core.checks import check_choice, check_limit
from pgrecall.core.documents import check_text
from pgrecall.core.filters import project_filter
from pgrecall.core.items import (
    below,
    key_values,
    last_of_each,
    own_vectors,
    patterns,
    put_values,
    vector_values,
)
from pgrecall.core.vectors import to_vector
from pgrecall.errors import InvalidInput
from pgrecall.models import Distance, Item, Json, Namespace, NewItem, RecalledItem, VectorLike
from pgrecall.sql import statement
from pgrecall.telemetry.operations import Operation

DISTANCES = ("cosine", "inner_product", "l2")


class AsyncItemStore:
    """Items of a project, by namespace and key (table ``pgrecall.items``).

    An item whose time is up is found no more; ``expire`` deletes it.
    """

    def __init__(self, scope: AsyncScope) -> None:
        self._scope = scope
        self._database = scope.database

    async def put(
        self,
        items: Iterable[NewItem],
        *,
        delete: Iterable[tuple[Namespace, str]] = (),
        project_id: str | None = None,
        connection: AsyncConnection[Any] | None = None,
    ) -> None:
        """Keep items and delete others, all or none.

        Args:
            items: What to keep; each takes the place of the one that is there.
            delete: Namespaces and keys of what is to go.
            project_id: Whose they are.
            connection: A connection of yours, with which the write commits or rolls back. Items
                then need their vectors, since no text can be embedded meanwhile.

        Raises:
            InvalidInput: One of them cannot be kept; then nothing is changed.
            InvalidVector: A vector cannot be searched for.
            EmbeddingError: The texts could not be embedded.
        """
        with self._scope.measure("put_items", project_id, connection) as measured:
            project = {"project_id": self._scope.needed_project(project_id)}
            going = key_values(delete)
            kept = last_of_each(items)
            max_bytes = self._database.settings.max_document_bytes
            # What cannot be kept is refused before anything is embedded.
            coming = put_values(kept, self._scope.embedder.identity, max_bytes)
            own = own_vectors(kept)
            made = await self._embed(kept, connection, measured)
            coming |= vector_values([a or b for a, b in zip(made, own, strict=True)])
            async with self._database.transaction(connection) as lent:
                for name, values in (("delete", going), ("put", coming)):
                    if values["keys"]:
                        text = statement("items", name)
                        await self._database.execute(text, {**project, **values}, connection=lent)
            measured.results = len(coming["keys"]) + len(going["keys"])

    async def get(
        self,
        keys: Iterable[tuple[Namespace, str]],
        *,
        refresh: bool = False,
        project_id: str | None = None,
        connection: AsyncConnection[Any] | None = None,
    ) -> Mapping[tuple[Namespace, str], Item]:
        """Return those items that there are, by namespace and key.

        Args:
            keys: Which.
            refresh: Whether those that expire live their whole time again from now on; what is
                returned says until when they would have lived.
            project_id: Whose they are.
            connection: A connection of yours.

        Raises:
            InvalidInput: A namespace or key cannot be one.
        """
        with self._scope.measure("get_items", project_id, connection) as measured:
            values = {"project_id": self._scope.needed_project(project_id), **key_values(keys)}
            rows = await self._database.fetch(
                statement("items", "get"), values, tuple_row, connection=connection
            )
            found = [_item(row) for row in rows]
            await self._refresh(found if refresh else (), connection)
            measured.results = len(found)
        return {(item.namespace, item.key): item for item in found}

    async def list(
        self,
        namespace: Sequence[str] = (),
        *,
        where: Json | None = None,
        limit: int = 10,
        offset: int = 0,
        refresh: bool = False,
        project_id: str | None = None,
        connection: AsyncConnection[Any] | None = None,
    ) -> Sequence[Item]:
        """Return the items of a namespace and of those below it, the last changed first.

        Args:
            namespace: Whose items; all unless given.
            where: What their values hold: keys, each with what it is equal to, an object of
                operators (``{"score": {"$gte": 3}}``; ``$eq``, ``$ne``, ``$gt``, ``$gte``,
                ``$lt``, ``$lte``) or an object of inner keys.
            limit: Most items to return, 1 to 10,000.
            offset: How many to leave out before them.
            refresh: Whether those that expire live their whole time again from now on.
            project_id: Whose they are.
            connection: A connection of yours.

        Raises:
            InvalidInput: A filter cannot be meant.
        """
        with self._scope.measure("list_items", project_id, connection) as measured:
            names, filters = below(namespace, where)
            values = {"project_id": self._scope.needed_project(project_id), **filters}
            values |= {"limit": check_limit(limit), "offset": _offset(offset)}
            rows = await self._database.fetch(
                statement("items", "list", names), values, tuple_row, connection=connection
            )
            found = [_item(row) for row in rows]
            await self._refresh(found if refresh else (), connection)
            measured.results = len(found)
        return found

    async def recall(
        self,
        query: str | None = None,
        *,
        embedding: VectorLike | None = None,
        model: str | None = None,
        namespace: Sequence[str] = (),
        where: Json | None = None,
        limit: int = 10,
        offset: int = 0,
        distance: Distance = "cosine",
        with_vectors: bool = False,
        refresh: bool = False,
        project_id: str | None = None,
        connection: AsyncConnection[Any] | None = None,
    ) -> Sequence[RecalledItem]:
        """Return the items whose texts are nearest to a query, nearest first.

        Every vector below the namespace is compared, so the result is exact.

        Args:
            query: A text, compared with those that the memory's embedder has made vectors of.
            embedding: A vector instead, compared with those that came with their items.
            model: The name that those came with.
            namespace: Whose items, and those of the namespaces below; all unless given.
            where: What their values hold, as in ``list``.
            limit: Most items to return, 1 to 10,000.
            offset: How many to leave out before them.
            distance: What makes the score.
            with_vectors: Whether to return the items' vectors as well.
            refresh: Whether those that expire live their whole time again from now on.
            project_id: Whose they are.
            connection: A connection of yours.

        Raises:
            InvalidInput: A filter cannot be meant, or there is nothing to look for.
            InvalidVector: The vector cannot be searched for.
            EmbeddingError: The query could not be embedded.
        """
        with self._scope.measure("recall_items", project_id, connection) as measured:
            names, filters = below(namespace, where)
            values = {"project_id": self._scope.needed_project(project_id), **filters}
            values |= {"limit": check_limit(limit), "offset": _offset(offset)}
            values |= {"distance": check_choice(distance, DISTANCES, "distance")}
            values |= await self._asked(query, embedding, model, connection, measured)
            rows = await self._database.fetch(
                statement("items", "search", names),
                {**values, "with_vectors": with_vectors},
                tuple_row,
                connection=connection,
            )
            found = [RecalledItem(item=_item(row), score=row[7], vectors=row[8]) for row in rows]
            await self._refresh([hit.item for hit in found] if refresh else (), connection)
            measured.results = len(found)
        return found

    async def namespaces(
        self,
        *,
        prefixes: Iterable[Sequence[str]] = (),
        suffixes: Iterable[Sequence[str]] = (),
        max_depth: int | None = None,
        limit: int = 100,
        offset: int = 0,
        project_id: str | None = None,
        connection: AsyncConnection[Any] | None = None,
    ) -> Sequence[Namespace]:
        """Return the namespaces that have items, in order.

        Args:
            prefixes: How each begins; the label ``*`` stands for any one.
            suffixes: How each ends.
            max_depth: How many labels to keep of each; all unless given.
            limit: Most namespaces to return, 1 to 10,000.
            offset: How many to leave out before them.
            project_id: Whose they are.
            connection: A connection of yours.

        Raises:
            InvalidInput: A filter cannot be meant.
        """
        with self._scope.measure("list_namespaces", project_id, connection) as measured:
            rows = await self._database.fetch(
                statement("items", "namespaces"),
                {
                    "project_id": self._scope.needed_project(project_id),
                    **patterns(prefixes, suffixes),
                    "max_depth": None if max_depth is None else check_limit(max_depth, "max_depth"),
                    "limit": check_limit(limit),
                    "offset": _offset(offset),
                },
                tuple_row,
                connection=connection,
            )
            measured.results = len(rows)
        return [tuple(labels) for (labels,) in rows]

    async def delete(
        self,
        keys: Iterable[tuple[Namespace, str]],
        *,
        project_id: str | None = None,
        connection: AsyncConnection[Any] | None = None,
    ) -> int:
        """Delete items by namespace and key; returns how many there were.

        Raises:
            InvalidInput: A namespace or key cannot be one.
        """
        with self._scope.measure("delete_items", project_id, connection) as measured:
            measured.results = await self._database.execute(
                statement("items", "delete"),
                {"project_id": self._scope.needed_project(project_id), **key_values(keys)},
                connection=connection,
            )
        return measured.results

    async def expire(self, *, connection: AsyncConnection[Any] | None = None) -> int:
        """Delete items whose time is up, of all projects or the one bound; returns how many."""
        with self._scope.measure("expire_items", None, connection) as measured:
            filters, parameters = project_filter(self._scope.project_id)
            measured.results = await self._database.execute(
                statement("items", "expire", filters), parameters, connection=connection
            )
        return measured.results

    async def _embed(
        self,
        items: Sequence[NewItem],
        connection: AsyncConnection[Any] | None,
        measured: Operation,
    ) -> Sequence[Sequence[Vector]]:
        """Return the vectors of each item's texts; all texts are embedded at once."""
        texts = [text for item in items for text in item.texts]
        if not texts:
            return [()] * len(items)
        if connection is not None:
            raise InvalidInput(
                "no text can be embedded while your transaction waits",
                hint="embed it first with memory.embed(text) and give vectors=",
            )
        made = iter(await self._scope.embed(texts, "document", measured))
        return [[next(made) for _ in item.texts] for item in items]

    async def _asked(
        self,
        query: str | None,
        embedding: VectorLike | None,
        model: str | None,
        connection: AsyncConnection[Any] | None,
        measured: Operation,
    ) -> dict[str, Any]:
        """Return the parameters that say what to look for."""
        identity = check_text(model, name="model", allow_none=True)
        if embedding is None:
            text = self._scope.query_text(query)
            if connection is not None:
                raise InvalidInput(
                    "no text can be embedded while your transaction waits",
                    hint="embed it first with memory.embed(text) and give embedding=",
                )
            identity = self._scope.embedder.identity
            embedding = (await self._scope.embed([text], "query", measured))[0]
        elif query is not None:
            raise InvalidInput("there is a query and an embedding", hint="give one of them")
        return {"embedding": to_vector(embedding, None), "identity": identity}

    async def _refresh(
        self, items: Sequence[Item], connection: AsyncConnection[Any] | None
    ) -> None:
        """Let items that expire live their whole time again."""
        mortal = [(item.namespace, item.key) for item in items if item.expires_at is not None]
        if mortal:
            await self._database.execute(
                statement("items", "refresh"),
                {"project_id": items[0].project_id, **key_values(mortal)},
                connection=connection,
            )


def _item(row: Sequence[Any]) -> Item:
    project_id, namespace, key, value, created_at, updated_at, expires_at = row[:7]
    return Item(
        project_id=project_id,
        namespace=tuple(namespace),
        key=key,
        value=value,
        created_at=created_at,
        updated_at=updated_at,
        expires_at=expires_at,
    )


def _offset(value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidInput(f"offset is {value!r}", hint="give a number of rows, 0 or more")
    return value
