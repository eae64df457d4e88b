"""The text by which an episode or a piece of knowledge is embedded, and so found again.

An embedding model reads a few hundred tokens and was trained on sentences. So documents are
not embedded as JSON: they become short phrases, the most telling first, within a token budget::

    {"backlog_tasks": 12, "team": {"size": 5}}, {"decision": "create_sprint"}, {"created": true}
    backlog tasks: 12; team size: 5. decision: create sprint. created: yes

The same documents give the same text whatever the order of their keys, as ``jsonb`` does not
keep it. The outcome is never part of it: at recall time it is what one wants to learn.

Stored vectors are comparable only with vectors of texts made alike: change ``TEXT_VERSION``
whenever the text of any document changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pgrecall.core.phrases import Phrase, branch, leaf, phrases_of
from pgrecall.core.tokens import cut, estimate_tokens
from pgrecall.errors import InvalidInput

TEXT_VERSION = 1
"""Version of the rendering; rows embedded under another one should be embedded anew."""

MIN_TOKENS = 16

# The situation is what a recall asks with, so it gets half of the budget when all are long.
_EPISODE_WEIGHTS = (2.0, 1.0, 1.0)
_KNOWLEDGE_WEIGHTS = (3.0, 1.0)
# Identifiers and times get what is left, and of the whole at most this part.
_LATE_SHARE = 8
# Start and end mark, which every model adds.
_MARKS = 2


def render_episode(
    perception: Mapping[str, Any],
    reasoning: Mapping[str, Any],
    action: Mapping[str, Any],
    *,
    max_tokens: int = 256,
) -> str:
    """Return the text to embed for one decision.

    To recall by a structured situation instead of a text, embed
    ``render_episode(perception, {}, {})``.

    Args:
        perception: What the agent saw.
        reasoning: How it decided.
        action: What it did.
        max_tokens: What the embedder reads of a text; estimated without its tokenizer.

    Returns:
        Phrases such as ``"backlog tasks: 12; team size: 5. decision: create sprint"``; ``""``
        when the documents hold nothing that can be said.

    Raises:
        InvalidInput: ``max_tokens`` is below 16.
    """
    seen: set[str] = set()
    late: list[Phrase] = []
    parts = [phrases_of(part, seen, late) for part in (perception, reasoning, action)]
    return _render(parts, _EPISODE_WEIGHTS, late, max_tokens)


def render_knowledge(description: str, content: Mapping[str, Any], *, max_tokens: int = 256) -> str:
    """Return the text to embed for one strategy, pattern, constraint or heuristic.

    Args:
        description: What it says, in words; comes first, with three quarters of the budget
            when both are long.
        content: Its details.
        max_tokens: What the embedder reads of a text; estimated without its tokenizer.

    Raises:
        InvalidInput: ``max_tokens`` is below 16.
    """
    seen: set[str] = set()
    late: list[Phrase] = []
    parts = [phrases_of({"": description}, seen, late), phrases_of(content, seen, late)]
    return _render(parts, _KNOWLEDGE_WEIGHTS, late, max_tokens)


def _render(
    parts: list[Phrase], weights: tuple[float, ...], late: list[Phrase], max_tokens: int
) -> str:
    """Give each part its share of the budget, and what remains to identifiers and times."""
    if max_tokens < MIN_TOKENS:
        raise InvalidInput(
            f"a text cannot be rendered into {max_tokens} tokens",
            hint=f"allow at least {MIN_TOKENS}",
        )
    budget = max_tokens - _MARKS
    shares = fair_shares(
        [part.cost for part in parts], [part.least for part in parts], budget, weights
    )
    texts = [fit(part, share) for part, share in zip(parts, shares, strict=True)]
    text = ". ".join(part.rstrip(" .;,") for part in texts if part)
    left = min(budget - estimate_tokens(text), max_tokens // _LATE_SHARE)
    ending = fit(branch("", late), left)
    if ending:
        text = f"{text}. {ending}" if text else ending
    return cut(text, budget)


def fit(phrase: Phrase, budget: int) -> str:
    """Write a phrase within a number of tokens; ``""`` where that leaves nothing worth saying."""
    if phrase.children:
        inner = budget - phrase.label_cost
        shares = fair_shares(
            [child.cost for child in phrase.children],
            [child.least for child in phrase.children],
            inner,
        )
        said = [
            (child, text)
            for child, share in zip(phrase.children, shares, strict=True)
            if (text := fit(child, share))
        ]
        joined = phrase.separator.join(text for _, text in said)
        if not joined or not phrase.label:
            return joined
        return f"{phrase.label} {joined}" if said[0][0].label else f"{phrase.label}: {joined}"
    if phrase.cost > budget:
        shortened = cut(phrase.text, budget - (phrase.cost - phrase.text_cost))
        return str(leaf(phrase.label, shortened)) if shortened else ""
    return str(phrase)


def fair_shares(
    costs: Sequence[int],
    least: Sequence[int],
    budget: int,
    weights: Sequence[float] | None = None,
) -> list[int]:
    """Divide a budget: who needs less than an equal share gets that, the rest divide what is left.

    Args:
        costs: What each would take, most important first.
        least: What each needs to say anything; who cannot get even that gets nothing.
        budget: What there is.
        weights: Parts of each in an equal share; None for 1 each.

    Returns:
        One share for each cost, none larger than the cost, together at most ``budget``.
    """
    shares = [0] * len(costs)
    waiting: list[int] = []
    needed = 0
    for index, need in enumerate(least):
        if needed + need <= budget:
            needed += need
            waiting.append(index)

    def limits() -> dict[int, float]:
        left = budget - sum(shares)
        parts = sum(weights[i] if weights else 1.0 for i in waiting)
        return {i: left * (weights[i] if weights else 1.0) / parts for i in waiting}

    # First who needs more than an equal share, which makes that smaller; then who needs less,
    # which only makes it larger.
    while settled := [i for i, limit in limits().items() if least[i] > limit]:
        for i in settled:
            shares[i] = least[i]
        waiting = [i for i in waiting if i not in settled]
    while settled := [i for i, limit in limits().items() if costs[i] <= limit]:
        for i in settled:
            shares[i] = costs[i]
        waiting = [i for i in waiting if i not in settled]
    for i, limit in limits().items():
        shares[i] = int(limit)
    # What nobody needed goes to those who were held to their least, most important first.
    left = budget - sum(shares)
    for i, share in enumerate(shares):
        more = min(left, costs[i] - share) if share else 0
        shares[i] += more
        left -= more
    return shares
