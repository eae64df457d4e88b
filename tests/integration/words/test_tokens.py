"""What a word is; and texts that nobody thought of."""

from __future__ import annotations

import base64
import random
from typing import Any

import pytest
from psycopg.types.json import Jsonb
from tests.integration.words.conftest import INSERT, Connection, check_statistics, fold, say

from pgrecall import Memory


def words(connection: Connection, text: str) -> set[str]:
    row = connection.execute("SELECT tsvector_to_array(pgrecall.words(%s))", [text]).fetchone()
    assert row is not None
    return set(row[0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Invoices were paid", {"invoic", "paid"}),
        ("ERR-4711", {"err", "4711", "err-4711"}),
        ("INV-83KX-22", {"inv", "83kx", "22", "inv-83kx-22"}),
        ("src/app/main.py", {"src", "app", "main", "py", "src/app/main.py"}),
        ("createSprint()", {"creat", "sprint", "createsprint"}),
        ("backlog_tasks", {"backlog", "task", "backlog_tasks"}),
        ("v1.2.3", {"v1", "2", "3", "v1.2.3"}),
        ("user@example.com", {"user", "exampl", "com", "user@example.com"}),
        ("3.14 percent", {"3", "14", "3.14", "percent"}),
        ("the was of", set()),
        ("Größe naïve", {"größe", "naïv"}),
        ("don't Caroline's", {"carolin"}),
    ],
)
def test_words_and_identifiers(app: Connection, text: str, expected: set[str]) -> None:
    assert words(app, text) == expected


def test_what_json_escapes_parts_words(app: Connection) -> None:
    app.execute(INSERT, ["8f2f5c9e-7c57-4b0c-a7c8-1f6c0a4e0d11", "p", Jsonb(
        {"a": 'line1\nline2\tquo"ted back\\slash', "b": "caf\u00e9 \u0007bell"})])  # fmt: skip
    row = app.execute("SELECT tsvector_to_array(words) FROM pgrecall.texts").fetchone()
    assert row is not None
    assert {"line1", "line2", "quo", "ted", "back", "slash", "café", "bell"} <= set(row[0])


def test_no_text_makes_a_write_fail(app: Connection, owner: Connection) -> None:
    chance = random.Random(1)
    monsters = [
        base64.b64encode(chance.randbytes(700_000)).decode(),
        " ".join(f"w{i}" for i in range(150_000)),
        "x" * 900_000,
        "ab" * 1500 + " short",
        "gold " * 100_000,
        "a-" * 50_000 + "b",
        "aB" * 50_000,
        "'\"\\ & | ! :* <-> %s $1 {} @episodes @episodes/p",
        "\u4f60\u597d\u4e16\u754c \U0001f600 \u200d",
        "",
    ]
    ids = [say(app, text, "p") for text in monsters]
    app.execute(INSERT, ["00000000-0000-0000-0000-000000000001", "p", Jsonb({})])
    check_statistics(owner)
    fold(app)
    check_statistics(owner)
    (first, *_) = found(app, "short")
    assert first == ids[3]
    assert found(app, "@episodes")[0] == ids[7]


def found(app: Connection, text: str) -> list[Any]:
    alone = "SELECT * FROM pgrecall.recall_episodes(NULL, p_text => %s, p_context => false)"
    return [row[0] for row in app.execute(alone, [text]).fetchall()]


ODD = ("'", "\\", 'it\'s "quoted"', "a & b | !c", "x:*", "<->", "%s %% $1", "''", "@", "'; --")


@pytest.mark.parametrize("query", ODD)
def test_no_query_fails(memory: Memory, make_episode: Any, query: str) -> None:
    memory.episodes.record(**make_episode(perception={"text": f"{query} backlog"}))
    memory.episodes.recall(query, mode="words")
    assert len(memory.episodes.recall(query + " backlog")) == 1


@pytest.mark.parametrize("project", ["o'neill", "a/b", "@x", "back\\slash", "über & co"])
def test_projects_of_any_name(memory: Memory, make_episode: Any, project: str) -> None:
    mine = memory.episodes.record(**make_episode(project_id=project, perception={"t": "gold"}))
    memory.episodes.record(**make_episode(project_id="other", perception={"t": "gold"}))
    hits = memory.episodes.recall("gold", mode="words", project_id=project)
    assert [hit.episode for hit in hits] == [mine]


def test_several_languages(owner: Connection) -> None:
    german = say(owner, "die Häuser in der Stadt sind alt")
    english = say(owner, "the houses in the city are old")
    assert found(owner, "Haus") == []
    owner.execute("CALL pgrecall.set_languages('english', 'german')")
    check_statistics(owner)
    assert found(owner, "ein Haus") == [german]
    assert found(owner, "the house") == [english]
    assert found(owner, "die") == found(owner, "the") == []
    later = say(owner, "viele Häuser sind neu")
    assert set(found(owner, "Haus")) == {german, later}
    owner.execute("CALL pgrecall.set_languages('english')")
    check_statistics(owner)
    assert found(owner, "ein Haus") == []


def test_a_misspelt_word_finds_what_it_resembles(
    memory: Memory, make_episode: Any, app: Connection
) -> None:
    for i in range(30):
        text = f"delivery {1000 + 37 * i} of kaltoren{i}x was late"
        memory.episodes.record(**make_episode(perception={"text": text}, action={"n": i}))
    fold(app)
    for wrong in ("kaltoren7", "kaltorn7x", "kaltoern7x", "kaltorren7x"):
        (hit, *_) = memory.episodes.recall(wrong, mode="words", context=False)
        assert hit.episode.action == {"n": 7}, wrong
    # A word that is there is never replaced by one that resembles it.
    account = memory.episodes.recall("kaltoren7x", mode="words", explain=True).account
    assert account is not None
    assert account.words is not None
    assert [term.word for term in account.words.terms] == ["kaltoren7x"]
