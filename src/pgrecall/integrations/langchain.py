"""LangChain's ``VectorStore`` on pgrecall: ``pip install 'pgrecall[langchain]'``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import uuid4

from pgrecall._sync.memory import Memory, ProjectMemory
from pgrecall.errors import InvalidInput, MissingExtra
from pgrecall.models import Item, Json, NewItem, RecalledItem

try:
    import numpy as np
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import VectorStore
    from langchain_core.vectorstores.utils import maximal_marginal_relevance
except ImportError as error:
    raise MissingExtra("pgrecall.integrations.langchain", "langchain") from error

_ROOT = "langchain"


class MemoryEmbeddings(Embeddings):
    """A memory's embedder, as LangChain knows embedders."""

    def __init__(self, memory: ProjectMemory) -> None:
        self.memory = memory

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the vectors of texts that are kept."""
        return [vector.to_list() for vector in self.memory.embed(*texts, mode="document")]

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a text that is looked for."""
        return self.memory.embed(text)[0].to_list()


class PgrecallVectorStore(VectorStore):
    """Documents of a collection, kept as items in the project of a memory.

    Asynchronous calls are LangChain's: they run these in threads.
    """

    def __init__(
        self,
        memory: ProjectMemory,
        embedding: Embeddings | None = None,
        *,
        collection: str = "documents",
    ) -> None:
        """Make a store.

        Args:
            memory: The memory, bound to a project.
            embedding: Makes the vectors; the memory's embedder unless given.
            collection: The name of the collection.

        Raises:
            InvalidInput: The memory is not bound to a project.
        """
        if memory.project_id is None:
            raise InvalidInput(
                "the memory is not bound to a project", hint='give memory.project("apollo")'
            )
        self.memory = memory
        self.collection = collection
        self._embedding = embedding or MemoryEmbeddings(memory)
        self._namespace = (_ROOT, collection)
        # A model of the caller's has no name; the memory's own may be replaced by another.
        self._model = None if embedding else memory.embedder.identity

    @property
    def embeddings(self) -> Embeddings:
        """What makes the vectors."""
        return self._embedding

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None,
        metadatas: list[dict[Any, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        memory: ProjectMemory | None = None,
        dsn: str | None = None,
        project_id: str | None = None,
        collection: str = "documents",
        **kwargs: Any,
    ) -> PgrecallVectorStore:
        """Make a store and add texts to it.

        Args:
            texts: What to add.
            embedding: As for the class.
            metadatas: What is known of each text.
            ids: Their identifiers, made up unless given.
            memory: As for the class; unless given, one is opened and stays open.
            dsn: Where that is; what ``Memory.open()`` finds unless given.
            project_id: The project in it.
            collection: As for the class.
            kwargs: None; named so that a wrong one is told.

        Raises:
            InvalidInput: There is neither a memory nor a project, or an unknown argument.
        """
        if kwargs:
            raise InvalidInput(f"unknown arguments: {', '.join(kwargs)}")
        if memory is None:
            if project_id is None:
                raise InvalidInput("project_id is missing", hint="give project_id= or memory=")
            memory = Memory.open(dsn).project(project_id)
        store = cls(memory, embedding, collection=collection)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[Any, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Add texts, all or none; each takes the place of the one with its identifier.

        Args:
            texts: What to add.
            metadatas: What is known of each text.
            ids: Their identifiers, made up where there is none.
            kwargs: None; named so that a wrong one is told.

        Returns:
            The identifiers.

        Raises:
            InvalidInput: There are more or fewer of one than of another, or an unknown argument.
        """
        if kwargs:
            raise InvalidInput(f"unknown arguments: {', '.join(kwargs)}")
        given = list(texts)
        known = metadatas or [{}] * len(given)
        named = [id_ or str(uuid4()) for id_ in ids or [None] * len(given)]
        if not len(given) == len(known) == len(named):
            raise InvalidInput(
                f"there are {len(given)} texts, {len(known)} metadatas and {len(named)} ids",
                hint="give as many of each",
            )
        if given:
            vectors = self._embedding.embed_documents(given)
            self.memory.items.put(
                NewItem(
                    namespace=self._namespace,
                    key=id_,
                    value={"page_content": text, "metadata": metadata},
                    vectors=[vector],
                    model=self._model,
                )
                for id_, text, metadata, vector in zip(named, given, known, vectors, strict=True)
            )
        return named

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Delete documents by their identifiers; of those that are not there, nothing is said.

        Raises:
            InvalidInput: No identifiers are given, or an unknown argument.
        """
        if kwargs or ids is None:
            raise InvalidInput(
                f"unknown arguments: {', '.join(kwargs)}" if kwargs else "ids is missing",
                hint="give the ids of the documents",
            )
        self.memory.items.delete((self._namespace, id_) for id_ in ids)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return those documents that there are, in the order of their identifiers."""
        keys = [(self._namespace, id_) for id_ in ids]
        found = self.memory.items.get(keys)
        return [_document(found[key]) for key in dict.fromkeys(keys) if key in found]

    def similarity_search(
        self,
        query: str,
        k: int = 4,
        filter: Json | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Return the documents nearest to a query, nearest first.

        Args:
            query: What to look for.
            k: How many to return.
            filter: What their metadata hold, as in ``memory.items.list``.
            kwargs: None; named so that a wrong one is told.

        Raises:
            InvalidInput: The filter cannot be meant, or an unknown argument.
        """
        hits = self.similarity_search_with_score(query, k, filter, **kwargs)
        return [document for document, _ in hits]

    def similarity_search_with_score(
        self,
        query: str,
        k: int = 4,
        filter: Json | None = None,
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """Return the nearest documents, each with its cosine similarity: 1 is the same."""
        vector = self._embedding.embed_query(query)
        return [(_document(hit.item), hit.score)
                for hit in self._recall(vector, k, filter, **kwargs)]  # fmt: skip

    def similarity_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        filter: Json | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Return the documents nearest to a vector, nearest first."""
        return [_document(hit.item) for hit in self._recall(embedding, k, filter, **kwargs)]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Json | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Return near documents that are unlike each other.

        Args:
            query: What to look for.
            k: How many to return.
            fetch_k: How many of the nearest to choose from.
            lambda_mult: 1 for the nearest, 0 for those most unlike each other.
            filter: What their metadata hold, as in ``memory.items.list``.
            kwargs: None; named so that a wrong one is told.
        """
        vector = self._embedding.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(
            vector, k, fetch_k, lambda_mult, filter=filter, **kwargs
        )

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Json | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Return documents near a vector that are unlike each other, as by a query."""
        hits = self._recall(embedding, fetch_k, filter, with_vectors=True, **kwargs)
        if not hits:
            return []
        vectors = [vector.to_list() for hit in hits for vector in hit.vectors or ()]
        chosen = maximal_marginal_relevance(
            np.asarray(embedding, dtype=np.float32), vectors, lambda_mult=lambda_mult, k=k
        )
        return [_document(hits[i].item) for i in chosen]

    def _select_relevance_score_fn(self) -> Any:
        return lambda similarity: (1 + similarity) / 2

    def _recall(
        self,
        vector: Sequence[float],
        k: int,
        where: Json | None,
        *,
        with_vectors: bool = False,
        **unknown: Any,
    ) -> Sequence[RecalledItem]:
        if unknown:
            raise InvalidInput(f"unknown arguments: {', '.join(unknown)}")
        return self.memory.items.recall(
            embedding=vector,
            model=self._model,
            namespace=self._namespace,
            where={"metadata": where} if where else None,
            limit=k,
            with_vectors=with_vectors,
        )


def _document(item: Item) -> Document:
    return Document(
        id=item.key,
        page_content=item.value["page_content"],
        metadata=dict(item.value["metadata"]),
    )
