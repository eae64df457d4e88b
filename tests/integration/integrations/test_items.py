"""Items: documents by namespace and key."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgrecall import Memory
from pgrecall._sync.memory import ProjectMemory
from pgrecall.errors import InvalidInput, InvalidVector
from pgrecall.models import NewItem
from pgrecall.testing import Database

_LABELS = st.text("ab\x01\x02é𝄞%_.*", min_size=1, max_size=3).filter(str.strip)


@pytest.fixture
def apollo(pgrecall_memory: Memory) -> ProjectMemory:
    return pgrecall_memory.project("apollo")


@pytest.fixture
def owner(pgrecall_database: Database) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(pgrecall_database.owner_dsn, autocommit=True) as connection:
        yield connection


def new(*path: str, value: dict[str, Any] | None = None, **more: Any) -> NewItem:
    return NewItem(namespace=path[:-1], key=path[-1], value=value or {"n": 1}, **more)


def keys(memory: ProjectMemory, *labels: str, **more: Any) -> list[str]:
    return sorted(item.key for item in memory.items.list(labels, limit=100, **more))


def test_an_item_takes_the_place_of_the_one_before(apollo: ProjectMemory) -> None:
    apollo.items.put([new("users", "ada", "likes")])
    where = (("users", "ada"), "likes")
    before = apollo.items.get([where])[where]
    apollo.items.put([new("users", "ada", "likes", value={"tea": True})])
    (after,) = apollo.items.list()
    assert (before.value, after.value) == ({"n": 1}, {"tea": True})
    assert before.created_at == after.created_at == before.updated_at < after.updated_at


def test_of_several_for_one_key_the_last_counts(apollo: ProjectMemory) -> None:
    apollo.items.put([new("a", "k", value={"n": number}) for number in range(3)])
    assert [item.value for item in apollo.items.list()] == [{"n": 2}]


def test_projects_see_nothing_of_each_other(pgrecall_memory: Memory) -> None:
    apollo, zeus = pgrecall_memory.project("apollo"), pgrecall_memory.project("zeus")
    apollo.items.put([new("a", "k", texts=["large backlog"])])
    assert not zeus.items.list()
    assert not zeus.items.recall("large backlog")
    assert not zeus.items.namespaces()
    assert zeus.items.delete([(("a",), "k")]) == 0
    assert keys(apollo) == ["k"]
    with pytest.raises(InvalidInput, match="project_id is missing"):
        pgrecall_memory.items.list()


@settings(deadline=None, max_examples=40,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(
    namespaces=st.lists(st.lists(_LABELS, min_size=1, max_size=3), min_size=1, max_size=8),
    prefix=st.lists(_LABELS, max_size=2),
)
def test_below_a_namespace_is_what_begins_with_its_labels(
    apollo: ProjectMemory, namespaces: list[list[str]], prefix: list[str]
) -> None:
    apollo.items.delete((item.namespace, item.key) for item in apollo.items.list(limit=1000))
    apollo.items.put([new(*labels, "k") for labels in namespaces])
    found = {item.namespace for item in apollo.items.list(prefix, limit=1000)}
    assert found == {tuple(one) for one in namespaces if one[: len(prefix)] == prefix}
    assert set(apollo.items.namespaces(limit=1000)) == {tuple(one) for one in namespaces}


def test_values_are_filtered_by_what_they_hold(apollo: ProjectMemory) -> None:
    values: dict[str, dict[str, Any]] = {
        "a": {"n": 9, "who": {"name": "Ada", "tags": ["x"]}},
        "b": {"n": 10.5, "who": {"name": "Bo", "tags": []}},
        "c": {"n": "10", "done": None},
    }
    apollo.items.put([new("v", key, value=value) for key, value in values.items()])
    assert keys(apollo, where={"n": 9}) == ["a"]
    assert keys(apollo, where={"n": 9.0}) == ["a"]
    assert keys(apollo, where={"n": {"$gt": 9}}) == ["b"]  # as numbers; a text is no number
    assert keys(apollo, where={"n": {"$gte": 9, "$lt": 10}}) == ["a"]
    assert keys(apollo, where={"n": {"$lte": "2"}}) == ["c"]
    assert keys(apollo, where={"n": {"$ne": 9}}) == ["b", "c"]
    assert keys(apollo, where={"who": {"name": "Ada"}}) == ["a"]
    assert keys(apollo, where={"who": {"name": {"$ne": "Ada"}}}) == ["b", "c"]
    assert keys(apollo, where={"who": {"tags": []}}) == ["b"]
    assert keys(apollo, where={"who": None}) == ["c"]  # what is not there is null
    assert keys(apollo, where={"absent": 1}) == []
    assert keys(apollo, where={"n": {"$eq": 9}, "who": {"name": "Bo"}}) == []
    with pytest.raises(InvalidInput, match=r"\$regex is not an operator"):
        keys(apollo, where={"n": {"$regex": ".*"}})


def test_recall_compares_every_vector_of_an_item(apollo: ProjectMemory) -> None:
    apollo.items.put([
        new("t", "both", texts=["velocity declines", "team of five"]),
        new("t", "one", texts=["velocity declines in spring"]),
        new("t", "none"),
        new("u", "other", texts=["team of five"]),
    ])  # fmt: skip
    hits = apollo.items.recall("team of five", namespace=("t",))
    assert [hit.item.key for hit in hits] == ["both", "one"]
    assert hits[0].score == pytest.approx(1)
    assert {hit.item.key for hit in apollo.items.recall("team of five", limit=2)} == {
        "both", "other",
    }  # fmt: skip
    assert [hit.item.key for hit in apollo.items.recall("team of five", limit=2, offset=2)] == [
        "one"
    ]
    assert apollo.items.recall("x", namespace=("t",), where={"n": 2}) == []


def test_vectors_of_ones_own_are_compared_with_their_like(apollo: ProjectMemory) -> None:
    apollo.items.put([
        new("a", "three", vectors=[[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]),
        new("a", "two", vectors=[[3.0, 4.0]]),
        new("a", "text", texts=["words"]),
    ])  # fmt: skip
    (hit,) = apollo.items.recall(embedding=[0.0, 1.0, 0.0], with_vectors=True)
    assert hit.item.key == "three"
    assert hit.score == pytest.approx(1)
    assert hit.vectors is not None
    assert [vector.to_list() for vector in hit.vectors] == [[1, 0, 0], [0, 2, 0]]
    scores = {
        distance: apollo.items.recall(embedding=[3.0, 0.0], distance=distance)[0].score
        for distance in ("cosine", "inner_product", "l2")
    }
    assert scores == {"cosine": pytest.approx(0.6), "inner_product": 9, "l2": -4}
    assert [hit.item.key for hit in apollo.items.recall("words")] == ["text"]


def test_vectors_of_another_model_are_no_measure(apollo: ProjectMemory) -> None:
    apollo.items.put([
        new("a", "mine", vectors=[[1.0, 0.0]], model="mine"),
        new("a", "nameless", vectors=[[1.0, 0.0]]),
    ])  # fmt: skip
    for model, key in (("mine", "mine"), (None, "nameless")):
        (hit,) = apollo.items.recall(embedding=[1.0, 0.0], model=model)
        assert hit.item.key == key
    assert not apollo.items.recall(embedding=[1.0, 0.0], model="other")


def test_what_expires_is_found_no_more_and_refreshed_by_reads(
    apollo: ProjectMemory, owner: psycopg.Connection[Any]
) -> None:
    def age(seconds: float) -> None:
        owner.execute("UPDATE pgrecall.items SET expires_at = expires_at - %s",
                      [timedelta(seconds=seconds)])  # fmt: skip

    apollo.items.put([new("a", "short", ttl=60, texts=["soon gone"]), new("a", "long")])
    age(50)
    where = (("a",), "short")
    assert apollo.items.get([where], refresh=True)
    age(50)
    assert len(apollo.items.recall("soon gone", refresh=True)) == 1
    age(50)
    assert len(apollo.items.list(refresh=True)) == 2
    age(50)
    assert apollo.items.get([where])
    age(50)
    assert not apollo.items.get([where], refresh=True)
    assert not apollo.items.recall("soon gone")
    assert keys(apollo) == ["long"]
    assert apollo.items.expire() == 1
    assert owner.execute("SELECT count(*) FROM pgrecall.items").fetchone() == (1,)


def test_an_expired_item_that_comes_again_is_new(
    apollo: ProjectMemory, owner: psycopg.Connection[Any]
) -> None:
    apollo.items.put([new("a", "k", ttl=60)])
    owner.execute("UPDATE pgrecall.items SET expires_at = now() - interval '1 s', "
                  "created_at = now() - interval '1 h'")  # fmt: skip
    apollo.items.put([new("a", "k")])
    (item,) = apollo.items.list()
    assert (item.expires_at, item.created_at) == (None, item.updated_at)


def test_namespaces_begin_and_end_as_asked(apollo: ProjectMemory) -> None:
    for path in ("a/b/c", "a/x/c", "a/b", "d/b/c"):
        apollo.items.put([new(*path.split("/"), "k")])

    def found(**options: Any) -> list[str]:
        return ["/".join(one) for one in apollo.items.namespaces(**options)]

    assert found() == ["a/b", "a/b/c", "a/x/c", "d/b/c"]
    assert found(prefixes=[("a",)], suffixes=[("c",)]) == ["a/b/c", "a/x/c"]
    assert found(prefixes=[("a", "*", "c")]) == ["a/b/c", "a/x/c"]
    assert found(suffixes=[("b", "*")]) == ["a/b/c", "d/b/c"]
    assert found(max_depth=1) == ["a", "d"]
    assert found(limit=2, offset=1) == ["a/b/c", "a/x/c"]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (NewItem(namespace=(), key="k", value={}), "namespace is empty"),
        (NewItem(namespace=("a", ""), key="k", value={}), r"namespace\[1\] is blank"),
        (NewItem(namespace="ab", key="k", value={}), "namespace is 'ab'"),  # type: ignore[arg-type]
        (NewItem(namespace=("a",) * 33, key="k", value={}), "33 labels"),
        (NewItem(namespace=("a",), key="k" * 501, value={}), "501 characters"),
        (NewItem(namespace=("a",), key="k", value={"x": "a\0"}), "NUL"),
        (NewItem(namespace=("a",), key="k", value={}, ttl=-1), "ttl"),
    ],
)
def test_what_cannot_be_kept_is_refused_and_nothing_changes(
    apollo: ProjectMemory, item: NewItem, message: str
) -> None:
    apollo.items.put([new("a", "there")])
    with pytest.raises(InvalidInput, match=message):
        apollo.items.put([new("a", "first"), item], delete=[(("a",), "there")])
    assert keys(apollo) == ["there"]


def test_a_vector_without_direction_is_refused(apollo: ProjectMemory) -> None:
    with pytest.raises(InvalidVector, match="zero"):
        apollo.items.put([new("a", "k", vectors=[[0.0, 0.0]])])
    with pytest.raises(InvalidInput, match="give one of them"):
        apollo.items.recall("a", embedding=[1.0])
    with pytest.raises(InvalidInput, match="give some words"):
        apollo.items.recall()


def test_items_commit_with_the_callers_own_work(
    apollo: ProjectMemory, pgrecall_database: Database
) -> None:
    with psycopg.connect(pgrecall_database.dsn) as connection:
        apollo.items.put([new("a", "k", vectors=[[1.0]])], connection=connection)
        assert apollo.items.get([(("a",), "k")], connection=connection)
        with pytest.raises(InvalidInput, match="no text can be embedded"):
            apollo.items.put([new("a", "k", texts=["x"])], connection=connection)
        connection.rollback()
    assert keys(apollo) == []


def test_writers_of_the_same_items_wait_for_each_other(pgrecall_memory: Memory) -> None:
    apollo = pgrecall_memory.project("apollo")
    names = [f"k{number}" for number in range(20)]
    failures: list[Exception] = []

    def write(order: list[str], who: int) -> None:
        try:
            for turn in range(20):
                apollo.items.put([new("a", name, value={"who": who, "turn": turn})
                                  for name in order])  # fmt: skip
        except Exception as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=write, args=(names[:: 1 if who % 2 else -1], who))
               for who in range(4)]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    (one,) = {(item.value["who"], item.value["turn"]) for item in apollo.items.list(limit=100)}
    assert one[1] == 19


def test_other_roles_read_or_stay_out(pgrecall_database: Database, apollo: ProjectMemory) -> None:
    apollo.items.put([new("a", "k")])
    with psycopg.connect(pgrecall_database.role_dsn("readonly"), autocommit=True) as reader:
        assert reader.execute("SELECT namespace, key FROM pgrecall.items").fetchone() == (
            ["a"], "k",
        )  # fmt: skip
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute("DELETE FROM pgrecall.items")
    with (
        psycopg.connect(pgrecall_database.role_dsn("monitor"), autocommit=True) as monitor,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        monitor.execute("SELECT FROM pgrecall.items")
