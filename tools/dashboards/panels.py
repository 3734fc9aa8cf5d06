"""How panels look here: one function for each kind, and what all dashboards share.

In a query, `$servers` stands for the servers that the viewer chose, and `[$rate]` for the interval
that Grafana finds right for a rate.
"""

from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.builders import heatmap, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models import prometheus as prometheus_models

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
WIDTH = 24
"""Columns of Grafana's grid."""

GREEN, YELLOW, RED, BLUE, PURPLE, GREY = "green", "yellow", "red", "blue", "purple", "#808080"
COLORS = {
    "{{outcome}}": {"PERSISTED": BLUE, "SKIPPED": GREEN, "BUFFERED": PURPLE},
    "{{path}}": {"OPTIMIZED": GREEN, "STANDARD": BLUE},
    "{{reason}}": {"UNCHANGED": GREEN, "STANDARD_PATH": BLUE, "CHANGED": PURPLE},
    "{{result}}": {"right": GREEN, "wrong": RED, "hit": GREEN, "miss": BLUE},
}
"""What has a colour of its own, the same in every panel, by the label that names it."""


@dataclass(frozen=True, slots=True)
class Query:
    """One question to Prometheus, and what its series are called."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """From this value on a panel takes this colour; None is from the beginning."""

    value: float | None
    color: str


NOTHING = "-"
"""Shown where there is no value: nothing was saved, so there is no share of it."""

CALM = (Step(None, GREEN),)
NONE_WANTED = (Step(None, GREEN), Step(1e-9, RED))


def share_limits(warn: float, alarm: float) -> tuple[Step, ...]:
    """Colours of a share that should be low."""
    return Step(None, GREEN), Step(warn, YELLOW), Step(alarm, RED)


def expand(expr: str) -> str:
    """Write out what stands for something longer in the queries of this folder."""
    chosen = 'job=~"$job", instance=~"$instance"'
    return expr.replace("$servers", chosen).replace("[$rate]", "[$__rate_interval]")


def quantile(share: float, histogram: str, *by: str, where: str = "") -> str:
    """The value that this share of what a histogram counted lies below."""
    selector = ", ".join(filter(None, ("$servers", where)))
    groups = ", ".join(("le", *by))
    buckets = f"sum by ({groups}) (rate({histogram}_bucket{{{selector}}}[$rate]))"
    return f"histogram_quantile({share}, {buckets})"


def rate_by(counter: str, label: str) -> str:
    """How fast a counter grows, by one of its labels."""
    return f"sum by ({label}) (rate({counter}{{$servers}}[$rate]))"


def or_none(expr: str, label: str) -> str:
    """The series of a query, or one called "none": a counter of troubles begins with the first."""
    # `on ()`: without it "none" would stay beside the troubles that there are.
    return f'{expr} or on () label_replace(vector(0), "{label}", "none", "", "")'


def mean_by(histogram: str, *labels: str) -> str:
    """The mean of what a histogram counted, by labels; nothing while it counted nothing."""
    groups = ", ".join(labels)
    total = f"sum by ({groups}) (rate({histogram}_sum{{$servers}}[$rate]))"
    return f"{total} / (sum by ({groups}) (rate({histogram}_count{{$servers}}[$rate])) > 0)"


def mean(histogram: str, where: str = "") -> str:
    """The mean of what a histogram counted; nothing while it counted nothing."""
    selector = ", ".join(filter(None, ("$servers", where)))
    total = f"sum(rate({histogram}_sum{{{selector}}}[$rate]))"
    return f"{total} / (sum(rate({histogram}_count{{{selector}}}[$rate])) > 0)"


def _target(query: Query, number: int) -> prometheus.Dataquery:
    return (
        prometheus.Dataquery()
        .expr(expand(query.expr))
        .legend_format(query.legend)
        .ref_id(chr(ord("A") + number))
        .range()
        .datasource(SOURCE)
        .editor_mode(prometheus_models.QueryEditorMode.CODE)
    )


def _thresholds(steps: tuple[Step, ...]) -> dashboards.ThresholdsConfig:
    return (
        dashboards.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(value=step.value, color=step.color) for step in steps])
    )


def number(
    title: str,
    description: str,
    expr: str,
    *,
    unit: str,
    steps: tuple[Step, ...] = CALM,
    width: int = 3,
) -> stat.Panel:
    """One figure, with how it went behind it."""
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .no_value(NOTHING)
        .thresholds(_thresholds(steps))
        .color_scheme(dashboards.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .color_mode(common.BigValueColorMode.VALUE)
        .graph_mode(common.BigValueGraphMode.AREA)
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
        .span(width)
        .height(4)
        .with_target(_target(Query(expr), 0))
    )


def graph(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    width: int = 12,
    stacked: bool = False,
    most: float | None = None,
    dashed: str = "",
    log: bool = False,
) -> timeseries.Panel:
    """Lines over time; `most` is where the axis ends unless a line goes beyond.

    With `log` each line of the axis is a multiple of the one below, for what is spread widely.

    Colours are those of the label that a legend begins with. Where two lines share one, those
    that have `dashed` in their names are dashed.
    """
    legend = (
        common_builders.VizLegendOptions()
        .show_legend(True)
        .display_mode(common.LegendDisplayMode.LIST)
        .placement(common.LegendPlacement.BOTTOM)
    )
    tooltip = (
        common_builders.VizTooltipOptions()
        .mode(common.TooltipDisplayMode.MULTI)
        .sort(common.SortOrder.DESCENDING)
    )
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .no_value(NOTHING)
        .line_width(1.5)
        .fill_opacity(40 if stacked else 8)
        .show_points(common.VisibilityMode.NEVER)
        .legend(legend)
        .tooltip(tooltip)
        .span(width)
        .height(8)
    )
    if stacked:
        panel.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL))
    if log:
        panel.scale_distribution(
            common_builders.ScaleDistributionConfig().type(common.ScaleDistribution.LOG).log(10)
        )
    else:
        panel.min(0)
    if most is not None:
        panel.axis_soft_max(most)
    for index, query in enumerate(queries):
        panel.with_target(_target(query, index))
    for label in {query.legend.partition("}}")[0] + "}}": None for query in queries}:
        for name, color in COLORS.get(label, {}).items():
            _override(panel, rf"/\b{name}\b/", "color", {"mode": "fixed", "fixedColor": color})
    if dashed:
        _override(panel, f"/{dashed}/", "custom.lineStyle", {"fill": "dash", "dash": [8, 6]})
    return panel


def _override(panel: timeseries.Panel, names: str, what: str, value: dict[str, object]) -> None:
    panel.override_by_regexp(names, [models.DynamicConfigValue(id_val=what, value=value)])


def spread(title: str, description: str, histogram: str, *, width: int = 12) -> heatmap.Panel:
    """How the values of a histogram of seconds are spread, over time."""
    query = Query(f"sum by (le) (increase({histogram}_bucket{{$servers}}[$rate]))", "{{le}}")
    return (
        heatmap.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .calculate(False)
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heatmap_models.HeatmapColorMode.SCHEME)
            .scheme("Blues")
            .steps(64)
        )
        .y_axis(heatmap.YAxisConfig().unit("s"))
        .span(width)
        .height(8)
        .with_target(_target(query, 0).format(prometheus_models.PromQueryFormat.HEATMAP))
    )


def states(
    title: str,
    description: str,
    *queries: Query,
    words: dict[str, tuple[str, str]],
    width: int = 12,
) -> statetimeline.Panel:
    """What state each series was in, over time: `words` has a word and a colour for each value."""
    mapping = models.ValueMap(
        options={
            value: models.ValueMappingResult(text=text, color=color, index=index)
            for index, (value, (text, color)) in enumerate(words.items())
        }
    )
    panel = (
        statetimeline.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .mappings([mapping])
        .no_value(NOTHING)
        .span(width)
        .height(8)
    )
    for index, query in enumerate(queries):
        panel.with_target(_target(query, index))
    return panel


def dashboard(uid: str, title: str, description: str) -> dashboards.Dashboard:
    """Begin a dashboard: the choice of servers, and links to the others."""
    return (
        dashboards.Dashboard(title)
        .uid(f"statekeep-{uid}")
        .description(description)
        .tags(["statekeep"])
        .editable()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .refresh("10s")
        .time("now-1h", "now")
        .timezone(common.TimeZoneBrowser)
        .with_variable(
            dashboards.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
        )
        .with_variable(_choice("job", "Fleet", "label_values(statekeep_info, job)"))
        .with_variable(
            _choice("instance", "Server", 'label_values(statekeep_info{job=~"$job"}, instance)')
        )
        .link(
            dashboards.DashboardLink("statekeep")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["statekeep"])
            .include_vars(True)
            .keep_time(True)
        )
    )


def _choice(name: str, label: str, query: str) -> dashboards.QueryVariable:
    everything: Any = "$__all"
    return (
        dashboards.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".+")
        .current(models.VariableOption(selected=True, text="All", value=everything))
    )
