"""What was measured, to look at: how many times as long as without history each contestant takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.writing.contestants import CHRONONAUT, CONTINUUM, FLOOR, HISTORY_OBJECT, TRIGGER
from benchmarks.writing.measuring import Measured
from benchmarks.writing.targets import Results

# Seen on white and on black alike.
_INK: Final = "#7a828c"
_COLOURS: Final = {CHRONONAUT: "#2f81f7", TRIGGER: "#3fa266", HISTORY_OBJECT: "#c98a1b", CONTINUUM: "#d1544f"}
_BAR: Final = 0.8
"""The height of a bar; the next is at 1."""
_GAP: Final = 0.9
"""Between two workloads."""
_LABEL: Final = 9
"""How many times as far as the longest bar its label reaches."""
_STEPS: Final = (1, 2, 4, 10, 20, 50, 100)


def draw(results: Sequence[Results], path: Path) -> None:
    """Write the chart as SVG."""
    # Installed for this command alone.
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    style: dict[str, Any] = {"svg.hashsalt": path.name, "text.color": _INK, "font.size": 10}
    with mpl.rc_context(style):
        shown = [[measured for measured in one.measured if FLOOR in measured.seconds] for one in results]
        bars = max(len(_shown(measured)) for one in shown for measured in one)
        height = max(len(one) for one in shown) * (bars + _GAP) * 0.21 + 1.2
        figure = Figure(figsize=(2 + 4.5 * len(results), height), layout="constrained")
        axes: Any = figure.subplots(1, len(results), squeeze=False, sharex=True, sharey=True)[0]
        for one, measured, axis in zip(results, shown, axes, strict=True):
            _panel(axis, one.release, measured)
        longest = max(one.ratio(name).median for measured in shown for one in measured for name in _shown(one))
        steps = [step for step in _STEPS if step <= longest * 1.5]
        axes[0].set_xlim(0.9, longest * _LABEL)
        axes[0].set_xticks(steps, [f"{step} ×" for step in steps])  # noqa: RUF001
        axes[0].set_xticks([], minor=True)
        figure.suptitle("Times as long as the same work without history (shorter is better)", color=_INK)
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})


def _shown(measured: Measured) -> list[str]:
    return [name for name in measured.workload.contestants if name != FLOOR]


def _panel(axis: Any, title: str, workloads: Sequence[Measured]) -> None:
    """A database: a group of bars for each workload, each bar with its contestant and its figure."""
    top, ticks = 0.0, []
    for measured in workloads:
        names = _shown(measured)
        for number, name in enumerate(names):
            ratio = measured.ratio(name)
            is_own = name == CHRONONAUT
            # From 1 on, where the work without history ends: what is seen is what history adds.
            axis.barh(top + number, ratio.median - 1, left=1, height=_BAR, color=_COLOURS[name])
            axis.annotate(
                f"{name} {ratio.median:.2f}",
                (max(ratio.median, 1.0), top + number),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                color=_COLOURS[name],
                fontweight="bold" if is_own else "normal",
                fontsize=9,
            )
        ticks.append((top + (len(names) - 1) / 2, measured.workload.title))
        top += len(names) + _GAP
    axis.set_title(title, color=_INK, loc="left", fontweight="bold")
    axis.set_xscale("log")
    axis.set_yticks([place for place, _ in ticks], [name for _, name in ticks])
    axis.set_ylim(top - _GAP, -1)
    axis.axvline(1, color=_INK, linewidth=1)
    axis.tick_params(colors=_INK, length=0)
    for side in axis.spines.values():
        side.set_visible(False)
