"""What the memory holds, as frozen records: a field is a column of the table named.

The vector columns are the exception: an embedding is 1.5 to 6 KB that callers rarely read,
so records leave it out and ``episodes.embeddings(ids)`` fetches it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypedDict, TypeVar
from uuid import UUID

from pgvector import Vector

Json: TypeAlias = Mapping[str, Any]
"""A JSON object: string keys; values None, bool, int, float, str, list or object."""

ControlMode: TypeAlias = Literal["rule_based_only", "intelligence_enhanced", "memory_augmented"]
KnowledgeType: TypeAlias = Literal["strategy", "pattern", "constraint", "heuristic"]


class SupportsBuffer(Protocol):
    """A one-dimensional array of numbers, such as ``numpy.ndarray`` (shape ``(dimensions,)``)."""

    def tolist(self) -> list[float]:
        """Return the values as a list of floats."""
        ...


VectorLike: TypeAlias = Sequence[float] | SupportsBuffer | Vector
"""An embedding: any sequence or array of ``dimensions`` finite numbers, not all zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One decision of an agent (table ``agent_episodes``).

    Attributes:
        outcome_quality: How well it turned out, 0 (worst) to 1 (best); None until known.
        embedded: Whether the row has a vector, so that recall by similarity can find it.
        external_id: The caller's own identifier, unique in its project; makes a write repeatable.
    """

    episode_id: UUID
    project_id: str
    timestamp: datetime
    perception: Json
    reasoning: Json
    action: Json
    outcome: Json | None
    outcome_quality: float | None
    outcome_recorded_at: datetime | None
    agent_version: str
    control_mode: ControlMode | None
    decision_source: str | None
    sprint_id: str | None
    chronicle_note_id: UUID | None
    external_id: str | None
    embedded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEpisode:
    """An episode to be recorded; what ``prepare`` returns and ``record_many`` takes.

    ``embedding`` is the vector; without one, recording makes it unless told ``embed="later"``.
    """

    project_id: str
    agent_version: str
    perception: Json
    reasoning: Json
    action: Json
    outcome: Json | None = None
    outcome_quality: float | None = None
    timestamp: datetime | None = None
    control_mode: ControlMode = "rule_based_only"
    decision_source: str | None = None
    sprint_id: str | None = None
    chronicle_note_id: UUID | None = None
    external_id: str | None = None
    episode_id: UUID | None = None
    embedding: VectorLike | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedMany:
    """What ``record_many`` did.

    Attributes:
        episodes: One for each given episode, in the same order.
        created: How many of them are new rows.
        existing: How many stood there already, under the same ``external_id``.
    """

    episodes: Sequence[Episode]
    created: int
    existing: int


class EpisodeFilters(TypedDict, total=False):
    """Which episodes a listing, a count or a recall is about; all that are given must match.

    Attributes:
        project_id: Of this project.
        project_ids: Of one of these projects.
        since: Not older than this.
        until: Older than this.
        sprint_id: Of this sprint.
        decision_source: Decided by this.
        agent_version: By this version of the agent.
        min_quality: With an outcome at least this good.
        max_quality: With an outcome at most this good.
        with_outcome: With (True) or without (False) a recorded outcome.
        perception: Whose perception contains this, as ``jsonb`` containment goes: objects that have
            at least these keys with these values.
        reasoning: Whose reasoning contains this.
        action: Whose action contains this.
        outcome: Whose outcome contains this.
    """

    project_id: str | None
    project_ids: Sequence[str] | None
    since: datetime | None
    until: datetime | None
    sprint_id: str | None
    decision_source: str | None
    agent_version: str | None
    min_quality: float | None
    max_quality: float | None
    with_outcome: bool | None
    perception: Json | None
    reasoning: Json | None
    action: Json | None
    outcome: Json | None


Route: TypeAlias = Literal["exact", "codes", "index"]
"""How a search finds the nearest rows, see ``docs/explanation/recall.md``."""


Embed: TypeAlias = Literal["now", "later"]
"""When a text is embedded: as it is recorded, or by a worker."""

SearchMode: TypeAlias = Literal["hybrid", "vector", "words"]
"""What a search looks at: words and vectors, or one of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What speaks for a hit, in nats, where words were looked at: ``words + surprise + lent``.

    Attributes:
        words: BM25 of the query's words, divided by what they say by chance (``Wording.chance``).
        surprise: What the similarity says: how improbable it is by chance, allowing for that among
            many something is; 0 without a vector.
        lent: What the episodes next in time lend it.
        total: All together.
    """

    words: float
    surprise: float
    lent: float
    total: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a score is made of: ``sum(weight * term)``; the weights add up to 1.

    Attributes:
        relevance: Similarity where only vectors were compared. With words as well, the similarity
            that alone would say as much as all the evidence; of words alone, the share of
            what the query's words could say at most.
        worth: Quality of the outcome (the mean, of repeated decisions), or confidence of knowledge;
            0.5 where it is not known.
        recency: 1 for what is new, halved in every half-life.
        evidence: What relevance is made of, where words were looked at.
    """

    relevance: float
    relevance_weight: float
    worth: float
    worth_weight: float
    recency: float
    recency_weight: float
    evidence: Evidence | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled:
    """One recalled episode.

    Attributes:
        similarity: Cosine similarity to the query, -1 to 1; None where no vectors were compared.
        score: What the hits are ordered by: relevance weighted with outcome, see ``recall``.
        repeats: Other episodes in which the same was perceived, reasoned and done: those with an
            outcome first, the newest first.
        terms: What the score is made of, if ``explain`` was asked for.
        reranked: What a re-ranker said of it, which then orders the hits; None without one, or
            where its time was up.
        neighbours: The episodes next in time, up to two before and two after, oldest first, if
            ``neighbours`` was asked for.
    """

    episode: Episode
    similarity: float | None
    score: float
    repeats: tuple[UUID, ...] = ()
    terms: Terms | None = None
    reranked: float | None = None
    neighbours: tuple[Episode, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowledge:
    """One strategy, pattern, constraint or heuristic (table ``agent_knowledge``).

    Attributes:
        confidence: 0 to 1.
        supporting_episodes: Episodes that speak for it; at least three while it is active.
        contradicting_episodes: Episodes that speak against it.
        success_rate: ``success_count / (success_count + failure_count)``; None before the first.
        project_id: The project it belongs to; None when all projects share it.
    """

    knowledge_id: UUID
    knowledge_type: KnowledgeType
    content: Json
    description: str
    confidence: float | None
    supporting_episodes: Sequence[UUID]
    contradicting_episodes: Sequence[UUID] | None
    times_applied: int | None
    success_count: int | None
    failure_count: int | None
    success_rate: float | None
    created_at: datetime | None
    last_validated: datetime | None
    last_applied: datetime | None
    created_by: str | None
    is_active: bool | None
    project_id: str | None
    embedded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RecalledKnowledge:
    """One recalled piece of knowledge; ``score`` is similarity weighted with confidence."""

    knowledge: Knowledge
    similarity: float | None
    score: float
    terms: Terms | None = None
    reranked: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanStep:
    """One step of the plans by which PostgreSQL found what was recalled.

    Attributes:
        step: Kind of the plan's node, such as ``"Index Scan"``.
        on: Table or intermediate result that it reads.
        index: Index that it uses.
        rows: Rows that it returned.
        removed: Rows that it read and that did not match.
        milliseconds: How long it took, with the steps below it.
    """

    step: str
    rows: int
    removed: int
    milliseconds: float
    on: str | None = None
    index: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WordTerm:
    """A word that was looked for.

    Attributes:
        word: The word, or its stem.
        weight: 1; less for a word that a misspelt one may stand for: how similar it is.
        texts: Texts that hold it.
        idf: What its rarity weighs, in nats.
    """

    word: str
    weight: float
    texts: float
    idf: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """What a search by words looked for, and how evidence was weighed.

    Attributes:
        terms: The words.
        texts: Texts of the projects that are searched.
        average: Words in each of them, on average.
        considered: Texts that were scored.
        complete: Whether no other text can have a better score by its words.
        mean: Similarity that the query has to a sample of what is stored, on average.
        spread: Its standard deviation.
        chance: BM25 that the sample has on average, where that is over 1: words that often occur
            together say less than the sum of their rarities, and are divided by it.
        lends: Shares of their evidence that episodes lend the next one and the next but one.
        milliseconds: How long it took.
    """

    terms: tuple[WordTerm, ...]
    texts: float | None
    average: float | None
    considered: int
    complete: bool
    mean: float
    spread: float
    chance: float
    lends: tuple[float, ...]
    milliseconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What a recall did, and why.

    Attributes:
        mode: What was looked at.
        route: The route that found the nearest vectors; None where none were compared.
        tried: Every route that was taken, in turn; the last is ``route``.
        why: The choice, in words.
        wanted: How many nearest rows were looked for, to be ranked.
        rows: Rows of the table, as the planner reckons them.
        matching: Rows among them that match the filter, as the planner reckons them.
        considered: Rows whose code or distance was looked at. The index does not tell of all
            vectors that it compared, only of those that it returned.
        expected_ms: Milliseconds that each route was expected to take; None where it would not
            find what there is.
        indexed: Whether there is a valid vector index.
        coded: Whether every vector has its code.
        embed_ms: How long the query was embedded.
        choose_ms: How long the route was chosen.
        search_ms: How long was searched; with the plans, which run the search a second time.
        total_ms: How long it took in all: ranking and transfer are what is left.
        plan: The steps of the plans.
        words: What was done by words, where they were looked at.
    """

    mode: SearchMode
    route: Route | None
    tried: tuple[Route, ...]
    why: str
    wanted: int
    rows: int | None
    matching: int | None
    considered: int
    expected_ms: Mapping[str, float | None]
    indexed: bool
    coded: bool
    embed_ms: float
    choose_ms: float
    search_ms: float
    total_ms: float
    plan: tuple[PlanStep, ...]
    words: Wording | None = None


Hit = TypeVar("Hit")


class Hits(list[Hit]):
    """What a recall returned, best first.

    Attributes:
        account: What the recall did, and why, if ``explain`` was asked for.
    """

    __slots__ = ("account",)

    account: Account | None

    def __init__(self, hits: Iterable[Hit] = ()) -> None:
        list.__init__(self, hits)
        self.account = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One working session of an agent (table ``agent_working_memory``).

    Attributes:
        active_context: What the agent holds in mind now.
        thought_history: Its thoughts, oldest first.
        expires_at: When it ends unless it is touched or closed before.
    """

    session_id: UUID
    project_id: str
    user_id: str | None
    current_goal: str | None
    active_context: Json | None
    thought_history: Sequence[Json] | None
    created_at: datetime | None
    last_updated: datetime | None
    expires_at: datetime | None
    is_active: bool | None
    related_episodes: Sequence[UUID] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecalledThought:
    """One thought of a session that was found by its words.

    Attributes:
        position: Its place in the session's history, from 0.
        score: BM25 of the query's words.
    """

    session_id: UUID
    project_id: str
    user_id: str | None
    position: int
    thought: Json
    score: float


Namespace: TypeAlias = tuple[str, ...]
"""Where an item is kept: labels, from the widest to the narrowest, such as ``("users", "ada")``."""

Distance: TypeAlias = Literal["cosine", "inner_product", "l2"]
"""How near vectors are: their cosine, their inner product, or how far apart they are (negative)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewItem:
    """An item to keep; it takes the place of one with the same namespace and key.

    Attributes:
        namespace: One label or more.
        key: Its name there.
        value: What it is.
        texts: What it can be found by: each is embedded.
        vectors: The same, already embedded by a model of yours. Give texts or vectors.
        model: That model's name; only vectors of one name are compared.
        ttl: How long it lives after a write, or a read that refreshes it: a timedelta, or seconds;
            for ever unless given.
    """

    namespace: Namespace
    key: str
    value: Json
    texts: Sequence[str] = ()
    vectors: Sequence[VectorLike] = ()
    model: str | None = None
    ttl: timedelta | float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A document kept by namespace and key (table ``pgrecall.items``)."""

    project_id: str
    namespace: Namespace
    key: str
    value: Json
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecalledItem:
    """An item that was found.

    Attributes:
        score: By the distance asked for, greater for what is nearer.
        vectors: What it was found by, if they were asked for.
    """

    item: Item
    score: float
    vectors: Sequence[Vector] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One measured operation or one sample (table ``agent_memory_metrics``).

    Attributes:
        latency_ms: Whole milliseconds, rounded up, as the specification's column is an integer.
        duration_ms: The exact duration in milliseconds.
    """

    metric_id: UUID
    timestamp: datetime | None
    operation_type: str | None
    latency_ms: int | None
    results_count: int | None
    recall_accuracy: float | None
    precision: float | None
    memory_usage_mb: float | None
    cpu_percent: float | None
    project_id: str | None
    episode_count: int | None
    strategy_count: int | None
    duration_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationSummary:
    """Latency of one kind of operation over a window, in milliseconds."""

    operation_type: str
    count: int
    mean_ms: float
    p50_ms: float
    p95_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """How much is remembered, of one project or of all.

    Attributes:
        with_outcome: Episodes whose outcome or its quality is known.
        mean_quality: Of the known qualities; None before the first.
        strategies: Active knowledge of every kind; what all projects share counts for each.
        applications: How often it was applied.
    """

    episodes: int
    with_outcome: int
    mean_quality: float | None
    strategies: int
    applications: int
    live_sessions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Staleness:
    """How far what a server shows is behind what its primary has committed.

    Attributes:
        standby: Whether it is a standby; a primary is never behind.
        receiving: Whether it receives from its primary at present; False on a primary.
        seconds: How old its picture is. 0 on a primary, and where all that was received is
            replayed while it receives; else the time since the last transaction that it replayed
            was committed, by the clocks of both servers. None if it has replayed none since it
            was started.
        bytes: Of the primary's log, received and not yet replayed; 0 on a primary, None where
            nothing was received since it was started.
    """

    standby: bool
    receiving: bool
    seconds: float | None
    bytes: int | None


Row = TypeVar("Row")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[Row]):
    """One page of a listing, newest first.

    Attributes:
        items: The records of this page.
        next_cursor: Give it as ``cursor=`` to get the next page; None on the last one.
    """

    items: Sequence[Row]
    next_cursor: str | None = None

    def __iter__(self) -> Iterator[Row]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)
