"""What the recalls of episodes and of knowledge share: options, and the telling of why."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from pgrecall.cli.output import Cell, Column, Printer, faint
from pgrecall.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.text import Text

    from pgrecall.models import Account, Hits, PlanStep, Terms, Wording

AgeWeight: TypeAlias = Annotated[
    float, typer.Option("--age-weight", metavar="A", help="How much being new lifts a hit, 0 to 1.")
]
HalfLife: TypeAlias = Annotated[
    str,
    typer.Option(
        "--half-life",
        metavar="TIME",
        help="In which being new halves: days, or a number with m, h, d or w.",
    ),
]
Diversity: TypeAlias = Annotated[
    float,
    typer.Option(
        "--diversity", metavar="X", help="How much hits must differ, 0 (not at all) to 1."
    ),
]
RouteName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--route", metavar="ROUTE", help="exact, codes or index, instead of what is cheapest."
    ),
]
Mode: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--mode", metavar="MODE", help="hybrid, vector or words, instead of all that there is."
    ),
]
Explain: TypeAlias = Annotated[
    bool,
    typer.Option("--explain", help="Tell what scores are made of, what was done, and why."),
]

_UNITS = {"m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_DURATION = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>[mhdw]?)")


def parse_duration(text: str, name: str) -> timedelta:
    """Return a time given as days, or as a number with a unit.

    Raises:
        InvalidInput: It is no such time.
    """
    wrong = InvalidInput(f"{name} is {text!r}, which is no time", hint="write it as 30, 12h or 2w")
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise wrong
    try:
        return timedelta(seconds=float(match["number"]) * _UNITS[match["unit"] or "d"])
    except OverflowError as error:
        raise wrong from error


def as_data(hits: Hits[Any], *, explain: bool) -> Any:
    """Return hits for JSON: a list, or with the account beside it."""
    return {"hits": list(hits), "account": hits.account} if explain else hits


def terms_of(terms: Terms | None, score: float, worth: str) -> str | None:
    """Return how a score came about, in one line; terms without weight are left out."""
    if terms is None:
        return None
    parts = [
        f"{weight:.2f} * {value:.3f} {name}"
        for weight, value, name in (
            (terms.relevance_weight, terms.relevance, _relevance(terms)),
            (terms.worth_weight, terms.worth, worth),
            (terms.recency_weight, terms.recency, "recency"),
        )
        if weight
    ]
    return f"{' + '.join(parts)} = {score:.3f}"


def _relevance(terms: Terms) -> str:
    """Return what relevance is made of."""
    if terms.evidence is None:
        return "similarity"
    parts = (
        ("words", terms.evidence.words),
        ("vector", terms.evidence.surprise),
        ("neighbours", terms.evidence.lent),
    )
    said = ", ".join(f"{name} {nats:.1f}" for name, nats in parts if nats)
    return f"relevance ({said or 'nothing'})"


def similarity_of(similarity: float | None) -> Cell:
    """Return a similarity for a table; nothing where no vectors were compared."""
    return faint("none") if similarity is None else similarity


def with_terms(cell: str | None, terms: str | None) -> Cell:
    """Return what a hit is about, and below it how its score came about."""
    if terms is None:
        return cell
    from rich.text import Text

    from pgrecall.cli.output import to_cell

    return Text.assemble(to_cell(cell), "\n", faint(terms))


def show_account(show: Printer, account: Account | None) -> None:
    """Print what a recall did, and why; the reasons name what each route was expected to take."""
    if account is None:
        return
    rows = f"{account.considered:,} considered for the {account.wanted:,} best"
    if account.rows is not None and account.matching is not None:
        rows = f"{account.rows:,} in the table, {account.matching:,} match, {rows}"
    times = (
        f"{account.total_ms:.1f} ms: embedding {account.embed_ms:.1f}, choosing "
        f"{account.choose_ms:.1f}, searching {account.search_ms:.1f} (twice, to have the plan)"
    )
    words = account.words
    if words is not None:
        times += f", words {words.milliseconds:.1f}"
    show.line()
    show.fields(
        [
            ("mode", account.mode),
            *([("words", _said(words))] if words is not None else []),
            ("route", account.route or "none"),
            ("why", account.why),
            ("tried", ", then ".join(account.tried)),
            ("rows", rows),
            ("took", times),
        ]
    )
    if account.plan:
        show.line()
        _table_of_steps(show, account.plan)


def _said(words: Wording) -> str:
    """Return what was looked for by words, the rarest first."""
    terms = sorted(words.terms, key=lambda term: -term.weight * term.idf)
    said = ", ".join(f"{term.word} {term.weight * term.idf:.1f}" for term in terms)
    more = "" if words.complete else "; only the texts with the rarest words were scored"
    return f"{said or 'none that any text holds'} (nats); {words.considered:,} texts{more}"


def _table_of_steps(show: Printer, steps: Sequence[PlanStep]) -> None:
    show.table(
        [
            Column(name="step"),
            Column(name="on", from_width=60),
            Column(name="index", from_width=90),
            Column(name="rows", right=True),
            Column(name="removed", right=True, from_width=72),
            Column(name="ms", right=True),
        ],
        [
            (
                step.step,
                _blank(step.on),
                _blank(step.index),
                step.rows,
                step.removed,
                f"{step.milliseconds:.2f}",
            )
            for step in steps
        ],
    )


def _blank(text: str | None) -> str | Text:
    return faint("") if text is None else text
