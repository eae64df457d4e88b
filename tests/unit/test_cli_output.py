from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from pgrecall import errors
from pgrecall.cli import output
from pgrecall.cli.options import parse_object, parse_time
from pgrecall.models import Page, Session

ID = UUID("11111111-2222-3333-4444-555555555555")
TIME = datetime(2026, 5, 1, 14, 30, tzinfo=UTC)


@pytest.fixture(autouse=True)
def nothing_chosen() -> None:
    output.forget()


def session() -> Session:
    return Session(
        session_id=ID,
        project_id="p",
        user_id=None,
        current_goal="Größe",
        active_context={"a": [1, {"b": None}]},
        thought_history=[],
        created_at=TIME,
        last_updated=None,
        expires_at=None,
        is_active=True,
        related_episodes=[ID],
    )


def test_records_become_objects_with_ids_and_times_as_text() -> None:
    document = json.loads(output.to_json(Page(items=[session()], next_cursor="c")))
    assert document["next_cursor"] == "c"
    (item,) = document["items"]
    assert item["session_id"] == str(ID)
    assert item["created_at"] == "2026-05-01T14:30:00+00:00"
    assert item["related_episodes"] == [str(ID)]
    assert item["active_context"] == {"a": [1, {"b": None}]}


def test_what_has_no_form_in_json_is_refused() -> None:
    with pytest.raises(TypeError, match="object has no form"):
        output.to_json(object())


def test_paths_and_tuples() -> None:
    assert json.loads(output.to_json({"p": Path("/x"), "t": (1, 2)})) == {"p": "/x", "t": [1, 2]}


def test_control_characters_never_reach_the_terminal() -> None:
    assert "\x1b" not in output.clean("a\x1b[2Jb\x07\x9bc")
    assert output.clean("täglich 日本\tx\ny") == "täglich 日本\tx\ny"
    cell = output.to_cell("[red]no markup[/red]\x1b]0;title\x07")
    assert cell.plain.startswith("[red]no markup[/red]")
    assert "\x1b" not in cell.plain


@pytest.mark.parametrize(
    ("text", "length", "expected"),
    [("short", 10, "short"), ("a  b\nc", 10, "a b c"), ("abcdefghij", 5, "abcd…"), ("ab", 1, "…")],
)
def test_shorten(text: str, length: int, expected: str) -> None:
    shortened = output.shorten(text, length)
    assert shortened == expected or len(shortened) <= 2 == len(text)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidInput("a"), 2),
        (errors.InvalidVector("a"), 2),
        (errors.ConfigurationError("a"), 2),
        (errors.MissingExtra("a", "postgres"), 2),
        (errors.NotFound("a"), 1),
        (errors.OperationRefused("a"), 1),
        (errors.Unavailable("a"), 1),
        (errors.SchemaTooOld("a"), 1),
    ],
)
def test_exit_codes_of_errors(error: errors.PgrecallError, code: int) -> None:
    assert output.report(error) == code


def test_an_error_is_told_with_its_hint(capsys: pytest.CaptureFixture[str]) -> None:
    output.report(errors.NotFound("no such thing", hint="look elsewhere"))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "error: no such thing\nhint: look elsewhere\n"


def test_an_error_is_an_object_where_json_was_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.choose(True)
    output.report(errors.NotFound("no such thing"))
    assert json.loads(capsys.readouterr().err) == {
        "error": "NotFound",
        "message": "no such thing",
        "hint": None,
    }


def test_a_pipe_gets_json_unless_told_otherwise() -> None:
    assert output.printer().as_json  # pytest captures, so stdout is no terminal
    assert not output.printer().asked_for_json
    assert not output.printer(False).as_json
    output.forget()
    assert output.printer(True).asked_for_json


def test_columns_that_do_not_fit_are_left_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = [output.Column(name="id"), output.Column(name="rest", wraps=True, from_width=70)]
    for width, shown in (("60", False), ("100", True)):
        monkeypatch.setenv("COLUMNS", width)
        output.printer(False).table(columns, [("a", "words " * 30)])
        text = capsys.readouterr().out
        assert ("words" in text) is shown
        assert max(len(line) for line in text.splitlines()) <= int(width)


def test_times() -> None:
    assert parse_time(None, "since") is None
    assert parse_time("2026-05-01T10:00:00Z", "since") == datetime(2026, 5, 1, 10, tzinfo=UTC)
    local = parse_time("2026-05-01", "since")
    assert local is not None
    assert local.tzinfo is not None
    assert (local.year, local.month, local.day) == (2026, 5, 1)
    with pytest.raises(errors.InvalidInput, match="--since is 'soon'"):
        parse_time("soon", "--since")


@pytest.mark.parametrize("text", ["{", "[1]", '"x"', "", "[" * 100_000])
def test_what_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(errors.InvalidInput, match="--action"):
        parse_object(text, "--action")
