"""Bodies and queries of requests for the four memories; their fields are the client's arguments."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from pgrecall.models import ControlMode, Embed, KnowledgeType, Route, SearchMode
from pgrecall.serving import examples
from pgrecall.serving.kinds import (
    Document,
    DocumentText,
    Flag,
    Fraction,
    Id,
    InQuery,
    Limit,
    Numbers,
    ProjectId,
    Seconds,
    Short,
    Time,
    Version,
)
from pgrecall.serving.schemas import Asked


def _like(*bodies: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [*bodies]})


class InProject(InQuery):
    """The project that a call on one row is meant for."""

    project_id: ProjectId | None = None


class PageQuery(InQuery):
    """Which page of a listing."""

    limit: Annotated[Limit, Field(description="Rows a page.")] = 50
    cursor: Annotated[
        str | None, Field(max_length=500, description="next_cursor of the page before.")
    ] = None


class EpisodeQuery(InQuery):
    """Which episodes; all that are given must match."""

    project_id: ProjectId | None = None
    project_ids: Annotated[list[ProjectId], Field(max_length=1000)] | None = None
    since: Annotated[Time | None, Field(description="Not older than this.")] = None
    until: Annotated[Time | None, Field(description="Older than this.")] = None
    sprint_id: Short | None = None
    decision_source: Short | None = None
    agent_version: Version | None = None
    min_quality: Fraction | None = None
    max_quality: Fraction | None = None
    with_outcome: Flag | None = None
    perception: DocumentText | None = None
    reasoning: DocumentText | None = None
    action: DocumentText | None = None
    outcome: DocumentText | None = None


class EpisodePageQuery(EpisodeQuery, PageQuery):
    """Which episodes, and which page of them."""


class ExportQuery(EpisodeQuery):
    """Which episodes, and whether with their vectors."""

    with_embeddings: Flag = False


class ImportQuery(InQuery):
    """How lines are imported."""

    project_id: Annotated[
        ProjectId | None,
        Field(description="Project of lines that name none; lines of others are then bad."),
    ] = None
    embed: Annotated[
        Embed, Field(description="Whether vectors that are not given are made now, or later.")
    ] = "now"


class NewEpisode(Asked):
    """A decision of an agent."""

    model_config = _like(examples.NEW_EPISODE)

    project_id: ProjectId
    agent_version: Version
    perception: Annotated[Document, Field(description="What the agent perceived.")]
    reasoning: Annotated[Document, Field(description="How it reasoned.")]
    action: Annotated[Document, Field(description="What it did.")]
    outcome: Annotated[Document | None, Field(description="How it turned out, if known.")] = None
    outcome_quality: Annotated[
        Fraction | None, Field(description="How well, 0 (worst) to 1 (best).")
    ] = None
    timestamp: Annotated[Time | None, Field(description="When; now unless given.")] = None
    control_mode: ControlMode = "rule_based_only"
    decision_source: Annotated[Short | None, Field(description="What decided.")] = None
    sprint_id: Short | None = None
    chronicle_note_id: Id | None = None
    external_id: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=200,
            description="Your own identifier, unique in the project; makes the call repeatable.",
        ),
    ] = None
    episode_id: Id | None = None
    embedding: Annotated[
        Numbers | None, Field(description="Its vector; made from the text unless given.")
    ] = None


class RecordEpisode(NewEpisode):
    """A decision to record, and how."""

    model_config = _like(examples.NEW_EPISODE)

    embed: Annotated[
        Embed | None, Field(description="later stores it without a vector, which a worker makes.")
    ] = None
    burst: Annotated[bool, Field(description="Write beside the vector index.")] = False


class RecordEpisodes(Asked):
    """Decisions to record: all of them, or none."""

    model_config = _like({"episodes": [examples.NEW_EPISODE]})

    episodes: Annotated[list[NewEpisode], Field(min_length=1, max_length=1000)]
    embed: Embed | None = None
    burst: bool = False


class RecordOutcome(Asked):
    """How a decision turned out: what happened, how well, or both."""

    model_config = _like({"outcome": {"completed": 5, "planned": 6}, "quality": 0.83})

    outcome: Document | None = None
    quality: Annotated[Fraction | None, Field(description="0 (worst) to 1 (best).")] = None


class EpisodeIds(Asked):
    """Episodes, by their identifiers."""

    model_config = _like({"episode_ids": [examples.EPISODE_ID]})

    episode_ids: Annotated[list[Id], Field(min_length=1, max_length=1000)]


class _Recall(Asked):
    """What recalls have in common."""

    query: Annotated[
        str | Document | None,
        Field(description="What to look for, in words or as a perception."),
    ] = None
    embedding: Annotated[
        Numbers | None, Field(description="What to look for, as a vector; made unless given.")
    ] = None
    min_similarity: Annotated[float, Field(ge=-1, le=1)] = -1.0
    age_weight: Annotated[Fraction, Field(description="How much it lifts a hit to be new.")] = 0.0
    half_life: Annotated[Seconds, Field(description="Seconds in which recency halves.")] = (
        30 * 86_400.0
    )
    diversity: Annotated[Fraction, Field(description="How much hits must differ.")] = 0.0
    mode: Annotated[
        SearchMode | None, Field(description="What to look at; all there is unless given.")
    ] = None
    route: Annotated[
        Route | None, Field(description="How to find the nearest vectors; chosen unless given.")
    ] = None
    explain: Annotated[
        bool, Field(description="Tell what scores are made of, and what was done and why.")
    ] = False


class RecallEpisodes(_Recall):
    """What to look for among past decisions; all filters that are given must match."""

    model_config = _like(examples.RECALL)

    limit: Annotated[Limit, Field(description="Most hits to return.")] = 10
    outcome_weight: Annotated[
        Fraction, Field(description="How much a good outcome lifts a hit.")
    ] = 0.15
    group_repeats: Annotated[bool, Field(description="Whether repetitions are one hit.")] = True
    context: Annotated[
        bool, Field(description="Whether episodes next in time lend each other evidence.")
    ] = True
    neighbours: Annotated[
        bool, Field(description="Whether each hit comes with the episodes next in time.")
    ] = False
    project_id: ProjectId | None = None
    project_ids: Annotated[list[ProjectId], Field(max_length=1000)] | None = None
    since: Annotated[Time | None, Field(description="Not older than this.")] = None
    until: Annotated[Time | None, Field(description="Older than this.")] = None
    sprint_id: Short | None = None
    decision_source: Short | None = None
    agent_version: Version | None = None
    min_quality: Fraction | None = None
    max_quality: Fraction | None = None
    with_outcome: bool | None = None
    perception: Annotated[Document | None, Field(description="Contains this.")] = None
    reasoning: Annotated[Document | None, Field(description="Contains this.")] = None
    action: Annotated[Document | None, Field(description="Contains this.")] = None
    outcome: Annotated[Document | None, Field(description="Contains this.")] = None


class AddKnowledge(Asked):
    """What was learned, and the evidence for and against it."""

    model_config = _like(examples.NEW_KNOWLEDGE)

    knowledge_type: KnowledgeType
    description: Annotated[
        str, Field(min_length=1, description="One or two sentences; what recall finds it by.")
    ]
    content: Annotated[Document, Field(description="Its details.")]
    supporting_episodes: Annotated[
        list[Id],
        Field(max_length=1000, description="At least three, unless it is not active yet."),
    ]
    contradicting_episodes: Annotated[list[Id], Field(max_length=1000, default_factory=list)]
    confidence: Fraction = 0.5
    project_id: Annotated[
        ProjectId | None, Field(description="The project it holds for; all unless given.")
    ] = None
    created_by: Short = "system"
    active: Annotated[bool, Field(description="False keeps it as a candidate.")] = True
    knowledge_id: Id | None = None
    embedding: Numbers | None = None
    embed: Embed | None = None


class KnowledgeQuery(PageQuery):
    """Which knowledge, and which page of it."""

    project_id: Annotated[
        ProjectId | None, Field(description="Of this project, and what all share.")
    ] = None
    knowledge_type: KnowledgeType | None = None
    active: Annotated[
        Literal["true", "false", "all"], Field(description="Active, or not, or all.")
    ] = "true"
    min_confidence: Fraction | None = None


class RecallKnowledge(_Recall):
    """The situation that knowledge is looked for."""

    model_config = _like({"query": "declining velocity, large backlog", "project_id": "apollo"})

    limit: Annotated[Limit, Field(description="Most hits to return.")] = 5
    confidence_weight: Annotated[
        Fraction, Field(description="How much confidence lifts a hit.")
    ] = 0.15
    project_id: Annotated[
        ProjectId | None, Field(description="Of this project, and what all share.")
    ] = None
    knowledge_type: KnowledgeType | None = None
    active: Annotated[bool | None, Field(description="Active, or not; null for both.")] = True
    min_confidence: Fraction | None = None


class RecordApplication(Asked):
    """That a piece of knowledge was applied, and how that went."""

    model_config = _like({"success": True, "episode_id": examples.EPISODE_ID})

    success: bool
    episode_id: Annotated[
        Id | None, Field(description="The decision; it joins the evidence for or against.")
    ] = None


class OpenSession(Asked):
    """A session to begin."""

    model_config = _like(examples.NEW_SESSION)

    project_id: ProjectId
    user_id: Annotated[str | None, Field(min_length=1, max_length=100)] = None
    goal: Annotated[str | None, Field(min_length=1, description="What it is to reach.")] = None
    context: Annotated[Document | None, Field(description="What is held in mind.")] = None
    ttl: Annotated[Seconds, Field(description="Seconds it lives unless extended.")] = 3600.0
    session_id: Id | None = None


class ResumeSession(Asked):
    """A session to go on with, or to begin."""

    model_config = _like({**examples.NEW_SESSION, "thoughts": [examples.THOUGHT]})

    project_id: ProjectId
    user_id: Annotated[str | None, Field(min_length=1, max_length=100)] = None
    goal: Annotated[str | None, Field(min_length=1, description="What it is to reach.")] = None
    context: Annotated[Document | None, Field(description="Keys to merge into its own.")] = None
    thoughts: Annotated[
        list[Document],
        Field(max_length=1000, default_factory=list, description="To add, oldest first."),
    ]
    ttl: Annotated[Seconds, Field(description="Seconds it lives from now on.")] = 3600.0


class ThoughtQuery(InProject):
    """Whose thoughts, and how many."""

    limit: Annotated[
        Limit | None, Field(description="Only the last so many; all unless given.")
    ] = None


class SessionQuery(PageQuery):
    """Which sessions, and which page of them."""

    project_id: ProjectId | None = None
    user_id: Annotated[str | None, Field(min_length=1, max_length=100)] = None
    active: Annotated[Flag | None, Field(description="Only live, or only ended ones.")] = None


class RecallThoughts(Asked):
    """What to look for among the thoughts of sessions."""

    model_config = _like({"query": "overcommitted", "project_id": "apollo", "limit": 5})

    query: Annotated[str | Document, Field(description="In words, or as a document.")]
    project_id: ProjectId | None = None
    user_id: Annotated[str | None, Field(min_length=1, max_length=100)] = None
    active: Annotated[bool | None, Field(description="Only live, or only ended ones.")] = None
    limit: Limit = 10


class UpdateContext(Asked):
    """Keys to merge into a session's context, at its top level."""

    model_config = _like({"context": {"sprint": 14}})

    context: Document


class AppendThought(Asked):
    """A thought to add at the end of a session's history."""

    model_config = _like({"thought": examples.THOUGHT})

    thought: Document


class AppendThoughts(Asked):
    """Thoughts to add at the end of a session's history: all of them, or none."""

    model_config = _like({"thoughts": [examples.THOUGHT]})

    thoughts: Annotated[list[Document], Field(min_length=1, max_length=1000)]


class SetGoal(Asked):
    """A session's new goal."""

    model_config = _like({"goal": "Plan sprint 15."})

    goal: Annotated[str, Field(min_length=1)]


class RelateEpisode(Asked):
    """An episode that belongs to a session."""

    model_config = _like({"episode_id": examples.EPISODE_ID})

    episode_id: Id


class ExtendSession(Asked):
    """How long a session is to live from now on."""

    model_config = _like({"ttl": 3600})

    ttl: Annotated[Seconds, Field(description="Seconds.")] = 3600.0


class ProjectQuery(InQuery):
    """Of which project."""

    project_id: ProjectId | None = None


class MetricQuery(InQuery):
    """Which measurements."""

    operation_type: Short | None = None
    project_id: ProjectId | None = None
    since: Annotated[Time | None, Field(description="Not older than this.")] = None
    until: Annotated[Time | None, Field(description="Older than this.")] = None


class MetricPageQuery(MetricQuery, PageQuery):
    """Which measurements, and which page of them."""


class PruneMetrics(Asked):
    """Which measurements to delete."""

    model_config = _like({"keep": 2_592_000})

    keep: Annotated[Seconds, Field(description="Seconds: older ones are deleted.")]
    project_id: ProjectId | None = None
