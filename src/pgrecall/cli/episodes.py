"""``pgrecall episodes``: decisions and how they turned out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgrecall.cli import options, recalling
from pgrecall.cli.opening import open_memory
from pgrecall.cli.output import NARROW, Cell, Column, Printer, choose, faint, printer, quality

if TYPE_CHECKING:
    from pgrecall.models import Episode, Hits, Page, Recalled

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

Id = Annotated[str, typer.Argument(metavar="ID", help="The episode's identifier (UUID).")]


File = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="A JSON object with the episode; - reads standard input."),
]
ProjectOfEpisode = Annotated[
    str | None, typer.Option(metavar="ID", help="The project, up to 50 characters.")
]
VersionOfAgent = Annotated[
    str | None, typer.Option(metavar="VERSION", help="Version of the deciding agent.")
]
Perception = Annotated[str | None, typer.Option(metavar="JSON", help="What the agent perceived.")]
Reasoning = Annotated[str | None, typer.Option(metavar="JSON", help="How it reasoned.")]
Action = Annotated[str | None, typer.Option(metavar="JSON", help="What it did.")]
Outcome = Annotated[str | None, typer.Option(metavar="JSON", help="How it turned out.")]
Quality = Annotated[
    float | None, typer.Option(metavar="Q", help="How well it turned out, 0 (worst) to 1 (best).")
]
Timestamp = Annotated[
    str | None, typer.Option(metavar="TIME", help="When it decided (ISO 8601); else now.")
]
ControlMode = Annotated[
    str | None,
    typer.Option(
        metavar="MODE", help="rule_based_only, intelligence_enhanced or memory_augmented."
    ),
]
DecisionSource = Annotated[str | None, typer.Option(metavar="NAME", help="What decided.")]
SprintOfEpisode = Annotated[str | None, typer.Option(metavar="ID", help="The sprint.")]
ExternalId = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="Your own identifier; makes the command repeatable."),
]
EmbedWhen = Annotated[
    str, typer.Option(metavar="now|later", help="Whether to make its vector now.")
]
Projects = Annotated[
    list[str] | None,
    typer.Option("--project", metavar="ID", help="Only of this project, or of one of several."),
]
InPerception = Annotated[
    str | None, typer.Option("--perception", metavar="JSON", help="Only who perceived this.")
]
InReasoning = Annotated[
    str | None, typer.Option("--reasoning", metavar="JSON", help="Only whose reasoning has this.")
]
InAction = Annotated[
    str | None, typer.Option("--action", metavar="JSON", help="Only whose action has this.")
]
InOutcome = Annotated[
    str | None, typer.Option("--outcome", metavar="JSON", help="Only whose outcome has this.")
]


@app.callback()
def episodes(as_json: options.JsonFlag = None) -> None:
    """Record decisions and their outcomes, and recall similar ones."""
    choose(as_json)


@app.command("record")
def record(
    file: File = None,
    project: ProjectOfEpisode = None,
    agent_version: VersionOfAgent = None,
    perception: Perception = None,
    reasoning: Reasoning = None,
    action: Action = None,
    outcome: Outcome = None,
    quality: Quality = None,
    timestamp: Timestamp = None,
    control_mode: ControlMode = None,
    decision_source: DecisionSource = None,
    sprint: SprintOfEpisode = None,
    external_id: ExternalId = None,
    embed: EmbedWhen = "now",
    dsn: options.Dsn = None,
    embedder: options.EmbedderName = None,
    as_json: options.JsonFlag = None,
) -> None:
    """Store one decision.

    The episode comes from --file, from the options, or from both: then the options win. The keys
    of the JSON object are project_id, agent_version, perception, reasoning, action, and as
    optional ones outcome, outcome_quality, timestamp, control_mode, decision_source, sprint_id,
    chronicle_note_id, external_id, episode_id and embedding.
    """
    show = printer(as_json)
    values = _from_file(file) if file is not None else {}
    given = {
        "project_id": project,
        "agent_version": agent_version,
        "perception": options.parse_object(perception, "--perception"),
        "reasoning": options.parse_object(reasoning, "--reasoning"),
        "action": options.parse_object(action, "--action"),
        "outcome": options.parse_object(outcome, "--outcome"),
        "outcome_quality": quality,
        "timestamp": timestamp,
        "control_mode": control_mode,
        "decision_source": decision_source,
        "sprint_id": sprint,
        "external_id": external_id,
    }
    values |= {name: value for name, value in given.items() if value is not None}
    _require(values)
    values["timestamp"] = options.parse_time(values.get("timestamp"), "timestamp")
    with open_memory(dsn, embedder) as memory:
        episode = memory.episodes.record(**values, embed=embed)  # type: ignore[arg-type]
    _show_one(show, episode)


def _from_file(path: str) -> dict[str, Any]:
    from pgrecall.errors import InvalidInput
    from pgrecall.ops.transfer import KEYS

    values = options.parse_object(options.read_text(path), path) or {}
    unknown = [name for name in values if name not in KEYS]
    if unknown:
        raise InvalidInput(
            f"{path} has unknown keys: {', '.join(map(repr, unknown))}",
            hint=f"known are {', '.join(KEYS)}",
        )
    return {name: value for name, value in values.items() if value is not None}


def _require(values: Mapping[str, Any]) -> None:
    from pgrecall.errors import InvalidInput
    from pgrecall.ops.transfer.lines import REQUIRED

    missing = [name for name in REQUIRED if name not in values]
    if missing:
        raise InvalidInput(
            f"the episode lacks {', '.join(missing)}",
            hint="give them as options, or as keys of the JSON object in --file",
        )


@app.command("recall")
def recall(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The situation, in words.")],
    project: Projects = None,
    limit: options.Limit = 10,
    min_similarity: options.MinSimilarity = -1.0,
    min_quality: options.MinQuality = None,
    max_quality: options.MaxQuality = None,
    outcome_weight: Annotated[
        float,
        typer.Option(metavar="W", help="How much a good outcome lifts a hit, 0 to 1."),
    ] = 0.15,
    age_weight: recalling.AgeWeight = 0.0,
    half_life: recalling.HalfLife = "30",
    diversity: recalling.Diversity = 0.0,
    group: Annotated[
        bool,
        typer.Option(
            "--group/--no-group", help="Whether decisions that repeat another are one hit."
        ),
    ] = True,
    since: options.Since = None,
    until: options.Until = None,
    sprint: options.Sprint = None,
    decision_source: options.Source = None,
    agent_version: options.AgentVersion = None,
    with_outcome: options.WithOutcome = None,
    perception: InPerception = None,
    reasoning: InReasoning = None,
    action: InAction = None,
    outcome: InOutcome = None,
    mode: recalling.Mode = None,
    context: Annotated[
        bool,
        typer.Option("--context/--no-context", help="Whether neighbours in time lend evidence."),
    ] = True,
    route: recalling.RouteName = None,
    explain: recalling.Explain = False,
    dsn: options.Dsn = None,
    embedder: options.EmbedderName = None,
    as_json: options.JsonFlag = None,
) -> None:
    """Show the past decisions that fit best, with their outcomes, best first.

    The score is (1 - W - A) * relevance + W * quality + A * recency; an outcome that is not known
    counts as 0.5, and recency halves in every --half-life. Relevance is the similarity, lifted by
    words and neighbours. With --json, --explain prints an object with hits and account.
    """
    show = printer(as_json)
    filters = options.episode_filters(
        since=since,
        until=until,
        sprint_id=sprint,
        decision_source=decision_source,
        agent_version=agent_version,
        min_quality=min_quality,
        max_quality=max_quality,
        with_outcome=with_outcome,
        perception=options.parse_object(perception, "--perception"),
        reasoning=options.parse_object(reasoning, "--reasoning"),
        action=options.parse_object(action, "--action"),
        outcome=options.parse_object(outcome, "--outcome"),
        **_of_projects(project),
    )
    life = recalling.parse_duration(half_life, "--half-life")
    with open_memory(dsn, embedder) as memory:
        hits = memory.episodes.recall(
            text,
            mode=mode,  # type: ignore[arg-type]  # checked there
            context=context,
            limit=limit,
            min_similarity=min_similarity,
            outcome_weight=outcome_weight,
            age_weight=age_weight,
            half_life=life,
            diversity=diversity,
            group_repeats=group,
            route=route,  # type: ignore[arg-type]  # checked there
            explain=explain,
            **filters,
        )
    if show.as_json:
        show.data(recalling.as_data(hits, explain=explain))
        return
    if hits:
        _table_of_hits(show, hits, one_project=project is not None and len(project) == 1)
    else:
        show.line("Nothing similar is remembered.")
    recalling.show_account(show, hits.account)


def _of_projects(projects: list[str] | None) -> dict[str, Any]:
    if not projects:
        return {}
    return {"project_id": projects[0]} if len(projects) == 1 else {"project_ids": projects}


def _table_of_hits(show: Printer, hits: Hits[Recalled], *, one_project: bool) -> None:
    tokens = _tokens(show)
    repeated = any(hit.repeats for hit in hits)
    show.table(
        [
            Column(name="score", right=True),
            Column(name="similar", right=True, from_width=72),
            Column(name="quality", right=True),
            Column(name="when", from_width=72),
            Column(name="project", from_width=999 if one_project else 90),
            Column(name="repeats", right=True, from_width=0 if repeated else 999),
            Column(name="what was done", wraps=True, share=4),
            Column(name="outcome", wraps=True, share=3),
            Column(name="id", from_width=150),
        ],
        [
            (
                hit.score,
                recalling.similarity_of(hit.similarity),
                quality(hit.episode.outcome_quality),
                hit.episode.timestamp.astimezone().date().isoformat(),
                hit.episode.project_id,
                len(hit.repeats) or faint("0"),
                recalling.with_terms(
                    _done(hit.episode, tokens),
                    recalling.terms_of(hit.terms, hit.score, "outcome"),
                ),
                _summary(hit.episode.outcome, tokens),
                str(hit.episode.episode_id),
            )
            for hit in hits
        ],
    )


def _summary(document: Mapping[str, Any] | None, tokens: int) -> str | None:
    """Return a JSON document in a few words."""
    from pgrecall.core.text import render_episode

    return render_episode({}, {}, document or {}, max_tokens=tokens) or None


def _done(episode: Episode, tokens: int) -> str | None:
    return _summary(episode.action, tokens) or _summary(episode.reasoning, tokens)


def _tokens(show: Printer) -> int:
    """Return how much of a document a row has room for."""
    return 20 if show.width < NARROW else 28


@app.command("outcome")
def outcome(
    episode_id: Id,
    quality: Quality = None,
    outcome: Outcome = None,
    project: options.Project = None,
    dsn: options.Dsn = None,
    as_json: options.JsonFlag = None,
) -> None:
    """Store how a decision turned out."""
    show = printer(as_json)
    happened = options.parse_object(outcome, "--outcome")
    with open_memory(dsn) as memory:
        episode = memory.episodes.record_outcome(episode_id, happened, quality, project_id=project)
    _show_one(show, episode)


@app.command("show")
def show_one(
    episode_id: Id,
    project: options.Project = None,
    dsn: options.Dsn = None,
    as_json: options.JsonFlag = None,
) -> None:
    """Show one decision in full."""
    show = printer(as_json)
    with open_memory(dsn) as memory:
        episode = memory.episodes.get(episode_id, project_id=project)
    _show_one(show, episode)


def _show_one(show: Printer, episode: Episode) -> None:
    if show.as_json:
        show.data(episode)
        return
    known: list[tuple[str, Cell]] = [
        ("id", str(episode.episode_id)),
        ("project", episode.project_id),
        ("when", episode.timestamp),
        ("agent version", episode.agent_version),
        ("control mode", episode.control_mode),
        ("decided by", episode.decision_source),
        ("sprint", episode.sprint_id),
        ("external id", episode.external_id),
        ("note", episode.chronicle_note_id),
    ]
    show.fields(
        [
            *((name, value) for name, value in known if value is not None),
            ("quality", quality(episode.outcome_quality)),
            ("recallable", "yes" if episode.embedded else "no: it has no vector"),
        ]
    )
    for name in ("perception", "reasoning", "action", "outcome"):
        document = getattr(episode, name)
        if document is not None:
            show.document(name, document)


@app.command("list")
def list_(
    project: options.Project = None,
    since: options.Since = None,
    until: options.Until = None,
    sprint: options.Sprint = None,
    decision_source: options.Source = None,
    agent_version: options.AgentVersion = None,
    min_quality: options.MinQuality = None,
    max_quality: options.MaxQuality = None,
    with_outcome: options.WithOutcome = None,
    limit: options.Limit = 50,
    cursor: options.Cursor = None,
    dsn: options.Dsn = None,
    as_json: options.JsonFlag = None,
) -> None:
    """List decisions, newest first, a page at a time."""
    show = printer(as_json)
    filters = options.episode_filters(
        since=since,
        until=until,
        sprint_id=sprint,
        decision_source=decision_source,
        agent_version=agent_version,
        min_quality=min_quality,
        max_quality=max_quality,
        with_outcome=with_outcome,
    )
    with open_memory(dsn) as memory:
        page = memory.episodes.list(project_id=project, limit=limit, cursor=cursor, **filters)
    if show.as_json:
        show.data(page)
    elif page.items:
        _table_of_episodes(show, page, one_project=project is not None)
    else:
        show.line("No such episodes.")


def _table_of_episodes(show: Printer, page: Page[Episode], *, one_project: bool) -> None:
    tokens = _tokens(show)
    show.table(
        [
            Column(name="id"),
            Column(name="when", from_width=72),
            Column(name="project", from_width=999 if one_project else 100),
            Column(name="quality", right=True, from_width=60),
            Column(name="what was done", wraps=True),
        ],
        [
            (
                str(episode.episode_id),
                episode.timestamp,
                episode.project_id,
                quality(episode.outcome_quality),
                _done(episode, tokens),
            )
            for episode in page
        ],
    )
    if page.next_cursor is not None:
        show.line(faint(f"more: --cursor {page.next_cursor}"))


@app.command("delete")
def delete(
    episode_ids: Annotated[
        list[str], typer.Argument(metavar="ID...", help="The episodes' identifiers (UUIDs).")
    ],
    project: options.Project = None,
    yes: options.Yes = False,
    dsn: options.Dsn = None,
    as_json: options.JsonFlag = None,
) -> None:
    """Delete decisions. Asks before it does.

    What is evidence for knowledge is not deleted: then nothing is. Exit code 1 if an episode did
    not exist.
    """
    show = printer(as_json)
    wanted = list(dict.fromkeys(episode_ids))
    count = len(wanted)
    options.confirm(f"Delete {count} episode{'s' if count != 1 else ''}?", yes=yes)
    with open_memory(dsn) as memory:
        deleted = memory.episodes.delete(*wanted, project_id=project)
    if show.as_json:
        show.data({"deleted": deleted, "missing": count - deleted})
    else:
        absent = f"; {count - deleted} did not exist" if deleted < count else ""
        show.line(f"deleted {deleted}{absent}")
    if deleted < count:
        raise typer.Exit(1)


@app.command("merge")
def merge(
    loop: Annotated[
        bool, typer.Option("--loop", help="Go on when nothing is left, until stopped.")
    ] = False,
    batch_size: Annotated[
        int, typer.Option(metavar="N", min=1, max=10_000, help="Episodes merged at a time.")
    ] = 100,
    give_up_after: Annotated[
        float, typer.Option(metavar="SECONDS", help="How long to try without success.")
    ] = 600.0,
    dsn: options.Dsn = None,
    as_json: options.JsonFlag = None,
) -> None:
    """Take what was recorded in bursts into the vector index, while agents go on.

    Any number of these may run at once, of which one works. With --loop it never gives up.
    """
    from dataclasses import asdict

    from pgrecall.cli.output import progress_bar, working
    from pgrecall.cli.stopping import stopped_by_signals
    from pgrecall.config import load_settings
    from pgrecall.ops.merging import Merge
    from pgrecall.ops.merging import merge as run
    from pgrecall.targets import resolve_dsn

    show = printer(as_json)
    with working("opening the memory", at_once=False) as progress:
        target = resolve_dsn(load_settings(dsn=dsn), progress=progress)
    with stopped_by_signals() as stop, progress_bar("merging") as advance:
        report = run(
            target,
            Merge(
                batch=batch_size,
                loop=loop,
                patience=None if loop else give_up_after,
                stop=stop,
                on_progress=advance,
            ),
        )
    if show.as_json:
        show.data(asdict(report))
    else:
        show.line(
            f"{report.merged:,} episodes merged in {report.seconds:.1f} s, {report.left:,} are left"
        )
