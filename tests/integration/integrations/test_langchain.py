"""LangChain's vector store, beyond its standard tests."""

from __future__ import annotations

import pytest
from langchain_core.documents import Document

from pgrecall import Memory
from pgrecall.errors import InvalidInput
from pgrecall.integrations.langchain import PgrecallVectorStore


@pytest.fixture
def store(pgrecall_memory: Memory) -> PgrecallVectorStore:
    store = PgrecallVectorStore(pgrecall_memory.project("apollo"))
    store.add_documents([
        Document(id="a", page_content="velocity declines in spring", metadata={"n": 1}),
        Document(id="b", page_content="velocity declines in summer", metadata={"n": 2}),
        Document(id="c", page_content="green tea", metadata={"n": 3, "by": {"name": "Ada"}}),
    ])  # fmt: skip
    return store


def ids(documents: list[Document]) -> list[str | None]:
    return [document.id for document in documents]


def test_scores_and_relevance(store: PgrecallVectorStore) -> None:
    (document, score), *_ = store.similarity_search_with_score("green tea")
    assert document.id == "c"
    assert score == pytest.approx(1)
    assert store.similarity_search_with_relevance_scores("green tea", k=1)[0][1] == pytest.approx(1)
    assert ids(store.similarity_search_by_vector(store.embeddings.embed_query("green tea"), k=1)) \
        == ["c"]  # fmt: skip


def test_filters_are_on_metadata(store: PgrecallVectorStore) -> None:
    assert ids(store.similarity_search("green tea", filter={"n": {"$lt": 3}}, k=1)) != ["c"]
    assert ids(store.similarity_search("x y", filter={"by": {"name": "Ada"}})) == ["c"]


def test_relevant_and_unlike_each_other(store: PgrecallVectorStore) -> None:
    found = store.max_marginal_relevance_search("velocity declines in spring", k=2, lambda_mult=0.1)
    assert ids(found) == ["a", "c"]
    assert store.max_marginal_relevance_search("x", filter={"n": 9}) == []


def test_collections_and_projects_are_apart(
    store: PgrecallVectorStore, pgrecall_memory: Memory
) -> None:
    for other in (
        PgrecallVectorStore(pgrecall_memory.project("apollo"), collection="other"),
        PgrecallVectorStore(pgrecall_memory.project("zeus")),
    ):
        assert other.similarity_search("green tea") == []
        assert other.get_by_ids(["c"]) == []
        other.delete(["c"])
    assert ids(store.get_by_ids(["c", "a", "none"])) == ["c", "a"]


def test_what_is_not_known_is_refused(store: PgrecallVectorStore, pgrecall_memory: Memory) -> None:
    with pytest.raises(InvalidInput, match="unknown arguments: namespace"):
        store.similarity_search("x", namespace="y")
    with pytest.raises(InvalidInput, match="2 texts, 1 metadatas"):
        store.add_texts(["a", "b"], [{}])
    with pytest.raises(InvalidInput, match="ids is missing"):
        store.delete()
    with pytest.raises(InvalidInput, match="not bound to a project"):
        PgrecallVectorStore(pgrecall_memory)


def test_from_texts(pgrecall_memory: Memory) -> None:
    made = PgrecallVectorStore.from_texts(["one", "two"], None, ids=["1", "2"],
                                          memory=pgrecall_memory.project("texts"))  # fmt: skip
    assert ids(made.similarity_search("two", k=1)) == ["2"]
    with pytest.raises(InvalidInput, match="project_id is missing"):
        PgrecallVectorStore.from_texts(["one"], None)


async def test_coroutines(store: PgrecallVectorStore) -> None:
    assert ids(await store.asimilarity_search("green tea", k=1)) == ["c"]
    assert await store.aadd_texts(["coffee"], ids=["d"]) == ["d"]
    await store.adelete(["c"])
    assert ids(await store.aget_by_ids(["c", "d"])) == ["d"]
