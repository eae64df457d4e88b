"""Examples in the OpenAPI document; the tests send those of requests."""

from __future__ import annotations

from typing import Any

Example = dict[str, Any]

EPISODE_ID = "3f2b8c1e-6d4a-4f0b-9a57-1c2d3e4f5a6b"
KNOWLEDGE_ID = "7a9d2c40-1b3e-4d5f-8a6b-0c1d2e3f4a5b"
SESSION_ID = "b1c2d3e4-f5a6-4b7c-8d9e-0f1a2b3c4d5e"
_OTHERS = (
    "0b7e4a52-90c1-4e6d-b3f8-5a1c2d3e4f60",
    "c4d5e6f7-a8b9-4c0d-9e1f-2a3b4c5d6e7f",
)
_TIME = "2026-05-01T12:30:00.123456+00:00"

NEW_EPISODE: Example = {
    "project_id": "apollo",
    "agent_version": "1.4.0",
    "perception": {"backlog_tasks": 12, "team_size": 5, "velocity_trend": "declining"},
    "reasoning": {"decision": "create_sprint", "confidence": 0.8},
    "action": {"sprint_created": True, "tasks_assigned": 6},
    "external_id": "sprint-14/plan",
}
EPISODE: Example = {
    "episode_id": EPISODE_ID,
    "project_id": "apollo",
    "timestamp": _TIME,
    "perception": NEW_EPISODE["perception"],
    "reasoning": NEW_EPISODE["reasoning"],
    "action": NEW_EPISODE["action"],
    "outcome": {"completed": 5, "planned": 6},
    "outcome_quality": 0.83,
    "outcome_recorded_at": "2026-05-15T09:00:00.000000+00:00",
    "agent_version": "1.4.0",
    "control_mode": "rule_based_only",
    "decision_source": None,
    "sprint_id": None,
    "chronicle_note_id": None,
    "external_id": "sprint-14/plan",
    "embedded": True,
}
EPISODES: Example = {"items": [EPISODE], "next_cursor": None}
RECORDED: Example = {"created": 1, "existing": 0, "episode_ids": [EPISODE_ID]}
RECALL: Example = {
    "query": "declining velocity, large backlog",
    "project_id": "apollo",
    "limit": 5,
}
RECALLED: Example = {
    "hits": [
        {
            "episode": EPISODE,
            "similarity": 0.71,
            "score": 0.73,
            "repeats": [],
            "terms": None,
            "reranked": None,
            "neighbours": [],
        }
    ],
    "account": None,
}
NEW_KNOWLEDGE: Example = {
    "knowledge_type": "strategy",
    "description": "Plan two thirds of the last velocity when it declines.",
    "content": {"share": 0.67},
    "supporting_episodes": [EPISODE_ID, *_OTHERS],
    "confidence": 0.7,
    "project_id": "apollo",
}
KNOWLEDGE: Example = {
    "knowledge_id": KNOWLEDGE_ID,
    "knowledge_type": "strategy",
    "content": {"share": 0.67},
    "description": NEW_KNOWLEDGE["description"],
    "confidence": 0.7,
    "supporting_episodes": [EPISODE_ID, *_OTHERS],
    "contradicting_episodes": [],
    "times_applied": 0,
    "success_count": 0,
    "failure_count": 0,
    "success_rate": None,
    "created_at": _TIME,
    "last_validated": None,
    "last_applied": None,
    "created_by": "system",
    "is_active": True,
    "project_id": "apollo",
    "embedded": True,
}
KNOWLEDGE_PAGE: Example = {"items": [KNOWLEDGE], "next_cursor": None}
RECALLED_KNOWLEDGE: Example = {
    "hits": [
        {
            "knowledge": KNOWLEDGE,
            "similarity": 0.64,
            "score": 0.65,
            "terms": None,
            "reranked": None,
        }
    ],
    "account": None,
}
THOUGHT: Example = {"text": "The backlog outgrew the team."}
NEW_SESSION: Example = {
    "project_id": "apollo",
    "user_id": "ada",
    "goal": "Plan sprint 14.",
    "context": {"sprint": 14},
    "ttl": 3600,
}
SESSION: Example = {
    "session_id": SESSION_ID,
    "project_id": "apollo",
    "user_id": "ada",
    "current_goal": "Plan sprint 14.",
    "active_context": {"sprint": 14},
    "thought_history": [THOUGHT],
    "created_at": _TIME,
    "last_updated": _TIME,
    "expires_at": "2026-05-01T13:30:00.123456+00:00",
    "is_active": True,
    "related_episodes": [],
}
SESSIONS: Example = {"items": [SESSION], "next_cursor": None}
THOUGHTS: Example = {
    "hits": [
        {
            "session_id": SESSION_ID,
            "project_id": "apollo",
            "user_id": "ada",
            "position": 0,
            "thought": THOUGHT,
            "score": 1.2,
        }
    ]
}
METRIC: Example = {
    "metric_id": "5d6e7f80-91a2-4b3c-8d4e-5f60718293a4",
    "timestamp": _TIME,
    "operation_type": "recall_similar",
    "latency_ms": 4,
    "results_count": 5,
    "recall_accuracy": None,
    "precision": None,
    "memory_usage_mb": None,
    "cpu_percent": None,
    "project_id": "apollo",
    "episode_count": None,
    "strategy_count": None,
    "duration_ms": 3.4,
}
METRICS: Example = {"items": [METRIC], "next_cursor": None}
SUMMARY: Example = {
    "operations": [
        {
            "operation_type": "recall_similar",
            "count": 120,
            "mean_ms": 3.1,
            "p50_ms": 2.9,
            "p95_ms": 5.2,
            "max_ms": 11.0,
        }
    ]
}
TOTALS: Example = {
    "episodes": 1200,
    "with_outcome": 900,
    "mean_quality": 0.71,
    "strategies": 14,
    "applications": 230,
}
MEMORY: Example = {
    "version": "0.1.0",
    "revision": "1.8.0",
    "dimensions": 384,
    "model": "builtin:all-MiniLM-L6-v2-int8",
    "access": {"name": "9f86d081884c", "scopes": ["read", "write"], "projects": ["apollo"]},
}
STALENESS: Example = {"standby": False, "receiving": False, "seconds": 0.0, "bytes": 0}
IMPORTED: Example = {
    "read": 3,
    "created": 2,
    "existing": 0,
    "updated": 0,
    "rejected": 1,
    "errors": [{"line": 3, "reason": "missing: action"}],
    "errors_left_out": 0,
}
LINE = (
    '{"project_id":"apollo","agent_version":"1.4.0","perception":{"backlog_tasks":12},'
    '"reasoning":{},"action":{"sprint_created":true}}\n'
)
