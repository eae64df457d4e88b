"""Which rows a caller's key reaches: every call is held to its projects.

A row of another project is not there, for reading and for writing alike, so an identifier tells
nothing. A project that the caller names itself and may not reach is refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol
from uuid import UUID

from pgrecall._async.memory import AsyncMemory
from pgrecall.errors import InvalidInput, NotFound
from pgrecall.models import Knowledge
from pgrecall.serving.access import Access, current
from pgrecall.serving.store import Store


class _OfProject(Protocol):
    @property
    def project_id(self) -> str | None: ...


def episode_filters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return filters of episodes, held to the caller's projects.

    Raises:
        Forbidden: They name another project.
    """
    access = current()
    filters = {name: value for name, value in given.items() if value is not None}
    if access.projects is None:
        return filters
    named = [*filters.get("project_ids", ())]
    if "project_id" in filters:
        named.append(filters["project_id"])
    for project_id in named:
        access.require_project(project_id)
    return filters if named else {**filters, "project_ids": sorted(access.projects)}


def one_project(project_id: str | None) -> str | None:
    """Return the project of a call that is for one, or for all: the key's, if it has but one.

    Raises:
        Forbidden: It is not the caller's, or the caller has several and names none.
    """
    access = current()
    if access.projects is None:
        return project_id
    if project_id is None and len(access.projects) == 1:
        return next(iter(access.projects))
    access.require_project(project_id)
    return project_id


async def of_row(
    project_id: str | None, get: Callable[[], Awaitable[_OfProject]], missing: str
) -> str | None:
    """Return the project that a call on one row is held to; None for any.

    Args:
        project_id: The project that the caller names.
        get: Reads the row, for keys that are for several projects.
        missing: What is said where the row is of another project.

    Raises:
        Forbidden: The caller names a project that is not its own.
        NotFound: There is no such row that the caller reaches.
    """
    access = current()
    if access.projects is None or project_id is not None or len(access.projects) == 1:
        return one_project(project_id)
    found = await get()
    if found.project_id not in access.projects:
        raise NotFound(missing)
    return found.project_id


async def known(memory: AsyncMemory, knowledge_id: UUID, project_id: str | None) -> Knowledge:
    """Return knowledge of the caller's projects, or shared by all.

    Raises:
        Forbidden: The caller names a project that is not its own.
        NotFound: There is no such knowledge that the caller reaches.
    """
    access = current()
    if access.projects is None or project_id is not None:
        project_id = one_project(project_id)
    found = await memory.knowledge.get(knowledge_id, project_id=project_id)
    if access.projects is not None and found.project_id not in (None, *access.projects):
        raise NotFound(f"there is no knowledge {knowledge_id}")
    return found


async def knowledge_to_change(
    memory: AsyncMemory, knowledge_id: UUID, project_id: str | None
) -> str | None:
    """Return the project that a change of knowledge is held to.

    What all projects share is changed by keys for all projects alone.

    Raises:
        Forbidden: It is shared, and the caller is restricted.
        NotFound: There is no such knowledge that the caller reaches.
    """
    access = current()
    if access.projects is None:
        return project_id
    found = await known(memory, knowledge_id, project_id)
    access.require_project(found.project_id)
    return found.project_id


async def own_episodes(
    store: Store, episode_ids: Sequence[UUID], access: Access | None = None
) -> list[UUID]:
    """Return those episodes that the caller reaches."""
    projects = (access or current()).projects
    if projects is None or not episode_ids:
        return [*episode_ids]
    foreign = await store.foreign_episodes(episode_ids, projects)
    return [episode_id for episode_id in episode_ids if episode_id not in foreign]


async def require_episodes(store: Store, episode_ids: Sequence[UUID]) -> None:
    """Refuse episodes that the caller does not reach, as if there were none such.

    Raises:
        InvalidInput: One is not the caller's.
    """
    own = set(await own_episodes(store, episode_ids))
    missing = [str(episode_id) for episode_id in episode_ids if episode_id not in own]
    if missing:
        raise InvalidInput(
            f"no such episodes: {', '.join(missing[:5])}"
            + (f" and {len(missing) - 5} more" if len(missing) > 5 else ""),
            hint="they may have been deleted; nothing was written",
        )
