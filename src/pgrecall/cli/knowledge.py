"""``pgrecall knowledge``: what was learned, and the evidence for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgrecall.cli import options, recalling
from pgrecall.cli.opening import open_memory
from pgrecall.cli.output import Column, Printer, choose, faint, printer, quality

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgrecall.models import Knowledge, RecalledKnowledge

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

Id = Annotated[str, typer.Argument(metavar="ID", help="The knowledge's identifier (UUID).")]
OfProject = Annotated[
    str | None,
    typer.Option("--project", metavar="ID", help="Of this project, and what all projects share."),
]
Kind = Annotated[
    str | None,
    typer.Option("--type", metavar="TYPE", help="strategy, pattern, constraint or heuristic."),
]
MinConfidence = Annotated[
    float | None,
    typer.Option("--min-confidence", metavar="C", help="Only at least this certain, 0 to 1."),
]
Active = Annotated[
    str,
    typer.Option("--active", metavar="yes|no|all", help="In use; retired or candidate; or all."),
]


@app.callback()
def knowledge(as_json: options.JsonFlag = None) -> None:
    """Keep strategies, patterns, constraints and heuristics, with their evidence."""
    choose(as_json)


@app.command("add")
def add(
    kind: Annotated[
        str, typer.Argument(metavar="TYPE", help="strategy, pattern, constraint or heuristic.")
    ],
    description: Annotated[
        str, typer.Argument(metavar="DESCRIPTION", help="One or two sentences that say it.")
    ],
    content: Annotated[str, typer.Option(metavar="JSON", help="Its details.")] = "{}",
    supports: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID", help="An episode that speaks for it; three or more, unless a candidate."
        ),
    ] = None,
    contradicts: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="An episode that speaks against it."),
    ] = None,
    confidence: Annotated[
        float, typer.Option(metavar="C", help="How certain it is, 0 to 1.")
    ] = 0.5,
    project: Annotated[
        str | None,
        typer.Option(metavar="ID", help="The project it holds for; all projects unless given."),
    ] = None,
    created_by: Annotated[str, typer.Option(metavar="NAME", help="Who found it.")] = "system",
    candidate: Annotated[
        bool, typer.Option("--candidate", help="Keep it as a candidate, not in use yet.")
    ] = False,
    dsn: options.Dsn = None,
    embedder: options.EmbedderName = None,
    as_json: options.JsonFlag = None,
) -> None:
    """Store a piece of knowledge with its evidence."""
    show = printer(as_json)
    details = options.parse_object(content, "--content") or {}
    with open_memory(dsn, embedder) as memory:
        added = memory.knowledge.add(
            kind,  # type: ignore[arg-type]  # checked there
            description,
            details,
            supporting_episodes=supports or (),
            contradicting_episodes=contradicts or (),
            confidence=confidence,
            project_id=project,
            created_by=created_by,
            active=not candidate,
        )
    _show_one(show, added)


@app.command("list")
def list_(
    project: OfProject = None,
    kind: Kind = None,
    active: Active = "yes",
    min_confidence: MinConfidence = None,
    limit: options.Limit = 50,
    cursor: options.Cursor = None,
    dsn: options.Dsn = None,
    as_json: options.JsonFlag = None,
) -> None:
    """List knowledge, newest first, a page at a time."""
    show = printer(as_json)
    with open_memory(dsn) as memory:
        page = memory.knowledge.list(
            project_id=project,
            knowledge_type=kind,  # type: ignore[arg-type]  # checked there
            active=_active(active),
            min_confidence=min_confidence,
            limit=limit,
            cursor=cursor,
        )
    if show.as_json:
        show.data(page)
        return
    if not page.items:
        show.line("No such knowledge.")
        return
    show.table(
        [
            Column(name="id"),
            Column(name="type", from_width=72),
            Column(name="description", wraps=True),
            Column(name="certain", right=True, from_width=60),
            Column(name="applied", right=True, from_width=90),
            Column(name="success", right=True, from_width=90),
            Column(name="project", from_width=110),
        ],
        [
            (
                str(item.knowledge_id),
                item.knowledge_type,
                item.description,
                quality(item.confidence),
                item.times_applied,
                quality(item.success_rate),
                item.project_id or faint("shared"),
            )
            for item in page
        ],
    )
    if page.next_cursor is not None:
        show.line(faint(f"more: --cursor {page.next_cursor}"))


def _active(word: str) -> bool | None:
    from pgrecall.core.checks import check_choice

    choices = {"yes": True, "no": False, "all": None}
    return choices[check_choice(word, tuple(choices), "--active")]


@app.command("recall")
def recall(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The situation, in words.")],
    project: OfProject = None,
    kind: Kind = None,
    active: Active = "yes",
    min_confidence: MinConfidence = None,
    limit: options.Limit = 5,
    min_similarity: options.MinSimilarity = -1.0,
    confidence_weight: Annotated[
        float, typer.Option(metavar="W", help="How much confidence lifts a hit, 0 to 1.")
    ] = 0.15,
    age_weight: recalling.AgeWeight = 0.0,
    half_life: recalling.HalfLife = "30",
    diversity: recalling.Diversity = 0.0,
    mode: recalling.Mode = None,
    route: recalling.RouteName = None,
    explain: recalling.Explain = False,
    dsn: options.Dsn = None,
    embedder: options.EmbedderName = None,
    as_json: options.JsonFlag = None,
) -> None:
    """Show the knowledge that fits a situation best, best first.

    The score is (1 - W - A) * relevance + W * confidence + A * recency; recency halves in every
    --half-life. Relevance is the similarity, lifted by words. With --json, --explain prints an
    object with hits and account.
    """
    show = printer(as_json)
    life = recalling.parse_duration(half_life, "--half-life")
    with open_memory(dsn, embedder) as memory:
        hits = memory.knowledge.recall(
            text,
            project_id=project,
            knowledge_type=kind,  # type: ignore[arg-type]  # checked there
            active=_active(active),
            min_confidence=min_confidence,
            mode=mode,  # type: ignore[arg-type]  # checked there
            limit=limit,
            min_similarity=min_similarity,
            confidence_weight=confidence_weight,
            age_weight=age_weight,
            half_life=life,
            diversity=diversity,
            route=route,  # type: ignore[arg-type]  # checked there
            explain=explain,
        )
    if show.as_json:
        show.data(recalling.as_data(hits, explain=explain))
        return
    if hits:
        _table_of_hits(show, hits)
    else:
        show.line("Nothing was learned about this yet.")
    recalling.show_account(show, hits.account)


def _table_of_hits(show: Printer, hits: Sequence[RecalledKnowledge]) -> None:
    show.table(
        [
            Column(name="score", right=True),
            Column(name="similar", right=True, from_width=72),
            Column(name="certain", right=True),
            Column(name="success", right=True, from_width=72),
            Column(name="type", from_width=90),
            Column(name="description", wraps=True),
            Column(name="id", from_width=120),
        ],
        [
            (
                hit.score,
                recalling.similarity_of(hit.similarity),
                quality(hit.knowledge.confidence),
                quality(hit.knowledge.success_rate),
                hit.knowledge.knowledge_type,
                recalling.with_terms(
                    hit.knowledge.description,
                    recalling.terms_of(hit.terms, hit.score, "confidence"),
                ),
                str(hit.knowledge.knowledge_id),
            )
            for hit in hits
        ],
    )


@app.command("show")
def show_one(
    knowledge_id: Id,
    project: OfProject = None,
    dsn: options.Dsn = None,
    as_json: options.JsonFlag = None,
) -> None:
    """Show one piece of knowledge in full."""
    show = printer(as_json)
    with open_memory(dsn) as memory:
        _show_one(show, memory.knowledge.get(knowledge_id, project_id=project))


@app.command("apply")
def apply(
    knowledge_id: Id,
    success: Annotated[
        bool | None,
        typer.Option("--success/--failure", help="Whether it went well.", show_default=False),
    ] = None,
    episode: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="The decision it was applied in; joins the evidence for or against."
        ),
    ] = None,
    project: OfProject = None,
    dsn: options.Dsn = None,
    as_json: options.JsonFlag = None,
) -> None:
    """Count one application of a piece of knowledge, and whether it succeeded."""
    from pgrecall.errors import InvalidInput

    show = printer(as_json)
    if success is None:
        raise InvalidInput("it is not said how it went", hint="give --success or --failure")
    with open_memory(dsn) as memory:
        applied = memory.knowledge.record_application(
            knowledge_id, success=success, episode_id=episode, project_id=project
        )
    _show_one(show, applied)


@app.command("retire")
def retire(
    knowledge_id: Id,
    project: OfProject = None,
    dsn: options.Dsn = None,
    as_json: options.JsonFlag = None,
) -> None:
    """Take a piece of knowledge out of use; it stays in the ledger."""
    show = printer(as_json)
    with open_memory(dsn) as memory:
        _show_one(show, memory.knowledge.retire(knowledge_id, project_id=project))


def _show_one(show: Printer, item: Knowledge) -> None:
    if show.as_json:
        show.data(item)
        return
    applied: Any = item.times_applied or 0
    show.fields(
        [
            ("id", str(item.knowledge_id)),
            ("type", item.knowledge_type),
            ("description", item.description),
            ("project", item.project_id or "shared by all"),
            ("in use", bool(item.is_active)),
            ("confidence", quality(item.confidence)),
            ("applied", f"{applied} times, {item.success_count or 0} with success"),
            ("success rate", quality(item.success_rate)),
            ("created", item.created_at),
            ("created by", item.created_by),
            ("evidence for", "\n".join(map(str, item.supporting_episodes)) or None),
            ("evidence against", "\n".join(map(str, item.contradicting_episodes or ())) or None),
        ]
    )
    show.document("content", item.content)
