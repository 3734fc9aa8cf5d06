"""The results as pictures, each as PNG and SVG. Without matplotlib there are none."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.growth import plot_growth
from benchmarks.measurements import Key, Rounds, median
from benchmarks.targets import Outcome

OURS, RIVAL, LIMIT = "#1f6f5c", "#b0b0b0", "#c2452d"
LABELS = {
    "echo": "bare echo",
    "least": "the least that a save can cost",
    "save": "statekeep, optimized",
    "save_beside_rivals": "statekeep, optimized, beside LangGraph",
    "save_plain": "statekeep, no compression, no telemetry",
    "skip": "statekeep, skipped",
    "load": "statekeep, loads",
    "standard": "statekeep, standard",
    "orm": "ORM session per save",
    "pgbench": "pgbench, a row per transaction",
    "langgraph_plain": "AsyncPostgresSaver",
    "langgraph_pipeline": "AsyncPostgresSaver, pipeline",
    "langgraph_pool": "AsyncPostgresSaver, pool",
    "langgraph_savers": "four AsyncPostgresSavers",
    "langgraph_sqlite": "AsyncSqliteSaver",
    "sqlite": "statekeep on SQLite",
    "sqlite_orm": "aiosqlite session per save",
}
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10)
STATEKEEP = ("save", "save_beside_rivals", "save_plain", "skip", "load", "standard", "sqlite")


def can_plot() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def plot(rounds: Rounds, outcomes: list[Outcome], folder: Path) -> None:
    """Write all pictures that there are numbers for."""
    import matplotlib as mpl  # late: it takes a second, and the smoke test has none

    mpl.use("Agg")
    mpl.rcParams.update(
        {"svg.hashsalt": "statekeep", "font.size": 9, "axes.spines.top": False}
        | {"axes.spines.right": False}
    )
    _plot_rates(rounds, folder)
    _plot_targets(outcomes, folder)
    growth = plot_growth(rounds)
    if growth is not None:
        _write(growth, folder, "growth")


def _plot_rates(rounds: Rounds, folder: Path) -> None:
    """The rate of every contender at each concurrency, with its smallest and largest round."""
    from matplotlib import pyplot as plt

    concurrencies = [
        concurrency
        for concurrency in (16, 64, 256)
        if any(at == concurrency and name in LABELS for name, at in rounds.contenders())
    ]
    if not concurrencies:
        return
    figure, all_axes = plt.subplots(
        1, len(concurrencies), figsize=(4.6 * len(concurrencies), 4.2), squeeze=False
    )
    for axes, concurrency in zip(all_axes[0], concurrencies, strict=True):
        bars = []
        for name, label in LABELS.items():
            values = list(rounds.by_round(Key(name, "rate", concurrency)).values())
            if values:
                bars.append((median(values), min(values), max(values), label, name in STATEKEEP))
        bars.sort()
        places = range(len(bars))
        axes.barh(
            places,
            [bar[0] for bar in bars],
            xerr=[[bar[0] - bar[1] for bar in bars], [bar[2] - bar[0] for bar in bars]],
            color=[OURS if bar[4] else RIVAL for bar in bars],
            error_kw={"elinewidth": 1, "ecolor": "#404040"},
        )
        axes.set_yticks(places, [bar[3] for bar in bars])
        axes.set_title(f"{concurrency} concurrent")
        axes.set_xlabel("a second, 10 kB states")
    _write(figure, folder, "rates")


def _plot_targets(outcomes: list[Outcome], folder: Path) -> None:
    """How far each target is reached: 1 is the target, to the right is better."""
    from matplotlib import pyplot as plt

    shown = [outcome for outcome in outcomes if outcome.measured]
    if not shown:
        return
    figure, axes = plt.subplots(figsize=(10, 0.32 * len(shown) + 1))
    places = range(len(shown) - 1, -1, -1)
    axes.barh(
        places,
        [_reached(outcome) for outcome in shown],
        color=[OURS if outcome.met else RIVAL for outcome in shown],
    )
    axes.axvline(1.0, color=LIMIT, linewidth=1.2)
    axes.margins(y=0.01)
    axes.set_xscale("log")
    axes.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    axes.set_xticks([], minor=True)
    axes.set_yticks(
        places, [f"{outcome.target.name}, {outcome.target.concurrency}" for outcome in shown]
    )
    axes.set_xlabel("share of the target that is reached (log scale)")
    _write(figure, folder, "targets")


def _reached(outcome: Outcome) -> float:
    measured = outcome.measured or 1.0
    ratio = measured / outcome.target.limit
    return ratio if outcome.target.bound == "at least" else 1 / ratio


def _write(figure: Any, folder: Path, name: str) -> None:
    from matplotlib import pyplot as plt

    figure.tight_layout()
    figure.savefig(folder / f"{name}.png", dpi=110, metadata={"Software": None})
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)
