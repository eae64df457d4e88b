"""Dashboard *learning*: outcomes, their quality, and knowledge that is applied."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard
from tools.grafana.panels import Panel, Query, board, figure, lines, of_monitor

from pgrecall.ops.monitor.alerts import RECALLS


def by_type(metric: str) -> str:
    """Return a metric of knowledge, by its type."""
    return f"sum by (type) ({of_monitor(metric)})"


OUTCOMES = f"sum({of_monitor('pgrecall_outcomes')})"
QUALITY = f"sum({of_monitor('pgrecall_outcome_quality_points')})"
TRIED = f"({by_type('pgrecall_knowledge_successes')} + {by_type('pgrecall_knowledge_failures')})"


def _glance() -> list[Panel]:
    return [
        figure(
            "Outcomes known",
            "Of the episodes, the part whose outcome was recorded.",
            "percentunit",
            f"sum({of_monitor('pgrecall_episodes_with_outcome')}) "
            f"/ sum({of_monitor('pgrecall_episodes')})",
            decimals=0,
        ),
        figure(
            "Quality, all time",
            "Mean quality of outcomes, 0 worst to 1 best.",
            "percentunit",
            f"{QUALITY} / {OUTCOMES}",
            decimals=0,
        ),
        figure(
            "Quality, last hour",
            "Of outcomes recorded in the last hour.",
            "percentunit",
            f"sum(delta({of_monitor('pgrecall_outcome_quality_points')}[1h])) "
            f"/ sum(delta({of_monitor('pgrecall_outcomes')}[1h]))",
            decimals=0,
        ),
        figure(
            "Knowledge",
            "Active strategies, patterns, constraints and heuristics.",
            "short",
            f"sum({of_monitor('pgrecall_knowledge_active')})",
            decimals=0,
        ),
        figure(
            "Applications",
            "How often active knowledge was applied.",
            "short",
            f"sum({of_monitor('pgrecall_knowledge_applied')})",
            decimals=0,
        ),
        figure(
            "Success of knowledge",
            "Of its applications with a known result, the part that went well.",
            "percentunit",
            f"sum({of_monitor('pgrecall_knowledge_successes')}) / "
            f"(sum({of_monitor('pgrecall_knowledge_successes')}) "
            f"+ sum({of_monitor('pgrecall_knowledge_failures')}))",
            decimals=0,
        ),
    ]


def _episodes() -> list[Panel]:
    return [
        lines(
            "Episodes and outcomes",
            "The gap is what nobody has reported back: agents cannot learn from it.",
            "short",
            Query(f"sum({of_monitor('pgrecall_episodes')})", "episodes"),
            Query(f"sum({of_monitor('pgrecall_episodes_with_outcome')})", "with outcome"),
            Query(OUTCOMES, "with quality"),
        ),
        lines(
            "Quality of outcomes over time",
            "Rising: agents decide better. The last hour moves sooner than the mean of all time.",
            "percentunit",
            Query(
                f"sum(delta({of_monitor('pgrecall_outcome_quality_points')}[1h])) "
                f"/ sum(delta({of_monitor('pgrecall_outcomes')}[1h]))",
                "last hour",
            ),
            Query(f"{QUALITY} / {OUTCOMES}", "all time"),
        ),
        lines(
            "Recorded an hour",
            "New episodes and outcomes, at the pace of the last five minutes.",
            "short",
            Query(f"sum(delta({of_monitor('pgrecall_episodes')}[5m])) * 12", "episodes"),
            Query(f"sum(delta({of_monitor('pgrecall_outcomes')}[5m])) * 12", "outcomes"),
            least=None,
        ),
    ]


def _knowledge() -> list[Panel]:
    return [
        lines(
            "Knowledge by type",
            "Active rows of agent_knowledge.",
            "short",
            Query(by_type("pgrecall_knowledge_active"), "{{type}}"),
            stacked=True,
        ),
        lines(
            "Confidence by type",
            "Mean of active rows, by the evidence for and against each.",
            "percentunit",
            Query(
                f"avg by (type) ({of_monitor('pgrecall_knowledge_confidence_ratio')})", "{{type}}"
            ),
        ),
        lines(
            "Applications by type",
            "How often active knowledge was applied.",
            "short",
            Query(by_type("pgrecall_knowledge_applied"), "{{type}}"),
        ),
        lines(
            "Success by type",
            "Of applications with a known result, the part that went well.",
            "percentunit",
            Query(f"{by_type('pgrecall_knowledge_successes')} / {TRIED}", "{{type}}"),
        ),
        lines(
            "Applications with a known result",
            "Successes and failures, all types.",
            "short",
            Query(f"sum({of_monitor('pgrecall_knowledge_successes')})", "successes"),
            Query(f"sum({of_monitor('pgrecall_knowledge_failures')})", "failures"),
            stacked=True,
        ),
        lines(
            "Recalls before decisions",
            "Recalls a recorded episode. Near zero: agents record and never look back.",
            "short",
            Query(
                "sum(rate(pgrecall_operation_duration_seconds_count"
                f'{{operation=~"{RECALLS}"}}[$__rate_interval])) / '
                "sum(rate(pgrecall_operation_results_total"
                '{operation=~"record_episodes?"}[$__rate_interval]))',
                "recalls an episode",
            ),
        ),
    ]


def learning() -> Dashboard:
    """What agents learn: outcomes, their quality, and knowledge that is applied."""
    return board(
        "pgrecall-learning",
        "Agent memory: learning",
        "What the agents learned, and whether it helps.",
        {"At a glance": _glance(), "Episodes": _episodes(), "Knowledge": _knowledge()},
    )
