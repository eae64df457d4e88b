"""The kinds of panels that our dashboards are made of, on grafana-foundation-sdk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    GraphTresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
    VariableRefresh,
)

from pgrecall.ops.monitor.alerts import NAMESPACE
from pgrecall.ops.monitor.objectives import Objectives

OBJECTIVES = Objectives()
FIRING = f'sum(ALERTS{{alertname=~"{NAMESPACE}.*",alertstate="firing"}}) or vector(0)'
TAG = "pgrecall"
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
GOOD, WARNING, BAD = "green", "orange", "red"
WIDTHS = {"third": 8, "half": 12, "whole": 24}

Panel = timeseries.Panel | stat.Panel


@dataclass(frozen=True)
class Query:
    """One query of a panel.

    Attributes:
        expr: PromQL; ``$instance`` stands for the monitors that were chosen.
        legend: A template of the name of its series.
    """

    expr: str
    legend: str


@dataclass(frozen=True)
class Limit:
    """Where the good ends.

    Attributes:
        value: The number, in the panel's unit.
        good: Whether what lies below it is good, or what lies above.
    """

    value: float
    good: Literal["below", "above"]

    def steps(self) -> list[Threshold]:
        """Return it as Grafana has it."""
        first, second = (GOOD, BAD) if self.good == "below" else (BAD, GOOD)
        return [Threshold(value=None, color=first), Threshold(value=self.value, color=second)]


def of_monitor(metric: str, labels: str = "") -> str:
    """Return a metric of the monitors that were chosen."""
    return f'{metric}{{instance=~"$instance"{"," if labels else ""}{labels}}}'


def quantile(part: float, metric: str, labels: str = "", by: str = "operation") -> str:
    """Return a quantile of a histogram, in seconds."""
    chosen = f"{{{labels}}}" if labels else ""
    keys = f"le, {by}" if by else "le"
    return (
        f"histogram_quantile({part}, "
        f"sum by ({keys}) (rate({metric}_bucket{chosen}[$__rate_interval])))"
    )


def _targets(queries: tuple[Query, ...]) -> list[prometheus.Dataquery]:
    letters = "ABCDEFGH"
    return [
        prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(letter).range()
        for letter, query in zip(letters, queries, strict=False)
    ]


def lines(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    limit: Limit | None = None,
    stacked: bool = False,
    width: str = "third",
    least: float | None = 0,
) -> timeseries.Panel:
    """Return a panel of lines over time.

    Args:
        title: Its heading.
        description: What it shows, and what to make of it.
        unit: As Grafana names it.
        queries: What it shows.
        limit: Drawn as a dashed line.
        stacked: Whether the series are parts of a whole.
        width: One of ``WIDTHS``.
        least: Where the axis begins, None where that depends on the data.
    """
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .span(WIDTHS[width])
        .height(8)
        .line_width(1)
        .fill_opacity(30 if stacked else 8)
        .show_points(VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )
    if least is not None:
        panel.min(least)
    if stacked:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    if limit is not None:
        panel.thresholds(
            dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(limit.steps())
        )
        panel.thresholds_style(
            common.GraphThresholdsStyleConfig().mode(GraphTresholdsStyleMode.DASHED)
        )
    return panel.targets([*_targets(queries)])


def figure(
    title: str,
    description: str,
    unit: str,
    expr: str,
    *,
    limit: Limit | None = None,
    words: dict[str, tuple[str, str]] | None = None,
    decimals: int | None = None,
) -> stat.Panel:
    """Return a panel with the latest value as a large number.

    Args:
        title: Its heading.
        description: What it shows, and what to make of it.
        unit: As Grafana names it.
        expr: PromQL of one series.
        limit: Colours it.
        words: Words and colours in the place of values, such as ``{"0": ("down", "red")}``.
        decimals: Digits after the point, chosen by Grafana unless given.
    """
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .span(4)
        .height(4)
        .graph_mode(BigValueGraphMode.NONE if words else BigValueGraphMode.AREA)
        .color_mode(BigValueColorMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(
            dashboard.ThresholdsConfig()
            .mode(ThresholdsMode.ABSOLUTE)
            .steps(limit.steps() if limit else [Threshold(value=None, color="blue")])
        )
        .targets([*_targets((Query(expr, title),))])
    )
    if words:
        options = {
            value: ValueMappingResult(text=text, color=color, index=index)
            for index, (value, (text, color)) in enumerate(words.items())
        }
        panel.mappings([ValueMap(options=options)])
    if decimals is not None:
        panel.decimals(decimals)
    return panel


def board(
    uid: str, title: str, description: str, rows: dict[str, list[Panel]]
) -> dashboard.Dashboard:
    """Return a dashboard of rows of panels, with links to ours beside it."""
    made = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .time("now-6h", "now")
        .refresh("30s")
        .timezone("browser")
        .editable()
        .link(
            dashboard.DashboardLink("Agent memory")
            .type(DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .keep_time(True)
            .include_vars(True)
        )
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
        )
        .with_variable(
            dashboard.QueryVariable("instance")
            .label("Monitor")
            .datasource(SOURCE)
            .query("label_values(pgrecall_up, instance)")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .include_all(True)
            .all_value(".*")
            .multi(True)
        )
    )
    number = 0
    for name, panels in rows.items():
        made.with_row(dashboard.Row(name).id(number := number + 1))
        for panel in panels:
            made.with_panel(panel.id(number := number + 1))
    return made
