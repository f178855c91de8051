"""The report's pictures, drawn by matplotlib's Agg without a display or global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pressmark import drawing
from pressmark.drawing import GRID, INK, literal, png
from pressmark.evaluation.report import figure, headline_protocols, models_of
from pressmark.evaluation.slices import LABELS
from pressmark.metrics import CUTOFFS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Markers differ too.
COLOURS = (*drawing.COLOURS, "#4D4D4D", "#8C6D1F")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
METRIC = "recall_at_10"


def draw(report: Mapping[str, Any]) -> dict[str, tuple[bytes, str]]:
    """Name -> (PNG, text alternative) of every picture that the report has data for."""
    pictures = {
        "tradeoff": (
            _tradeoff(report),
            "Recall@10 on warm against cold cases, each model from full to quotas.",
        ),
        "recall_curves": (_curves(report), "Recall at k for each model, with 95 % intervals."),
        "intervals": (_forest(report), "Recall@10 with 95 % intervals for each protocol and model."),
        "slices": (_slices(report), "Recall@10 with 95 % intervals for each slice and model."),
    }
    return {name: (png(drawn), text) for name, (drawn, text) in pictures.items() if drawn is not None}


def _figure(num_panels: int, height: float, width: float = 10.0) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(width, height), layout="constrained")
    panels = [drawn.add_subplot(1, num_panels, number + 1) for number in range(num_panels)]
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.spines[["left", "bottom"]].set_color("#9aa1a9")
        panel.grid(color=GRID, linewidth=0.8)
        panel.set_axisbelow(True)
        panel.tick_params(colors=INK, labelsize=9, length=0)
    return drawn, panels


def _legend(drawn: Figure, panel: Axes) -> None:
    handles, labels = panel.get_legend_handles_labels()
    drawn.legend(
        handles, labels, loc="outside lower center", ncols=min(len(labels), 6), frameon=False, fontsize=9.5
    )


def _title(panel: Axes, text: str) -> None:
    panel.set_title(text, loc="left", fontsize=11, color=INK, fontweight="bold")


def _tradeoff(report: Mapping[str, Any]) -> Figure | None:
    """One path a model through (warm, cold), from `full` over the quotas."""
    protocols = [name for name in report["protocols"] if name == "full" or name.startswith("quota_")]
    if not report["num_cases"].get("cold") or not report["num_cases"].get("warm"):
        return None
    drawn, (panel,) = _figure(1, 4.4, width=7.6)
    for number, model in enumerate(models_of(report)):
        warm, cold = (
            [figure(report, name, model, side, METRIC)["mean"] for name in protocols]
            for side in ("warm", "cold")
        )
        style: dict[str, Any] = {
            "color": COLOURS[number % len(COLOURS)],
            "marker": MARKERS[number % len(MARKERS)],
            "markersize": 6.5,
            "linewidth": 1.4,
            "clip_on": False,
        }
        panel.plot(warm, cold, label=_plain(model), **style)
        # A hollow first marker says where a path begins.
        panel.plot(warm[:1], cold[:1], markerfacecolor="white", **style)
    panel.set_xlabel("Recall@10, warm cases", fontsize=10, color=INK)
    panel.set_ylabel("Recall@10, cold cases", fontsize=10, color=INK)
    panel.set_xlim(left=0)
    panel.set_ylim(bottom=0)
    _title(panel, " to ".join(_plain(name) for name in protocols) + " (hollow: first)")
    _legend(drawn, panel)
    return drawn


def _curves(report: Mapping[str, Any]) -> Figure | None:
    quotas = [name for name in report["protocols"] if name.startswith("quota_")][:1]
    wanted = [("full", "warm"), *((name, "cold") for name in ["full", *quotas])]
    panels_of = [(p, s) for p, s in wanted if p in report["protocols"] and report["num_cases"].get(s)]
    if not panels_of:
        return None
    drawn, panels = _figure(len(panels_of), 3.9)
    places = range(len(CUTOFFS))
    for panel, (protocol, slice_name) in zip(panels, panels_of, strict=True):
        for number, model in enumerate(models_of(report)):
            cells = [figure(report, protocol, model, slice_name, f"recall_at_{k}") for k in CUTOFFS]
            colour = COLOURS[number % len(COLOURS)]
            low, high = [one["low"] for one in cells], [one["high"] for one in cells]
            panel.fill_between(places, low, high, color=colour, alpha=0.13, linewidth=0)
            panel.plot(
                places,
                [one["mean"] for one in cells],
                color=colour,
                marker=MARKERS[number % len(MARKERS)],
                markersize=5,
                linewidth=1.6,
                label=_plain(model),
            )
        panel.set_xticks(places, [str(k) for k in CUTOFFS])
        panel.set_xlabel("k", fontsize=10, color=INK)
        panel.set_ylim(bottom=0)
        _title(panel, f"{slice_name.capitalize()} cases, {_plain(protocol)}")
    panels[0].set_ylabel("Recall@k", fontsize=10, color=INK)
    _legend(drawn, panels[0])
    return drawn


def _forest(report: Mapping[str, Any]) -> Figure | None:
    sides = [name for name in ("warm", "cold") if report["num_cases"].get(name)]
    if not sides:
        return None
    groups = {side: headline_protocols(report, side) for side in sides}
    rows = max(len(names) for names in groups.values()) * (len(models_of(report)) + 1)
    drawn, panels = _figure(len(sides), 1.2 + 0.19 * rows)
    for panel, side in zip(panels, sides, strict=True):
        _rows_of_intervals(panel, report, [(name, side, _plain(name)) for name in groups[side]])
        _title(panel, f"{side.capitalize()} cases")
    _legend(drawn, panels[0])
    return drawn


def _slices(report: Mapping[str, Any]) -> Figure | None:
    """Warm slices under `full`; cold ones under `cold_only`, where routing does not blur them."""
    wanted = []
    for side, protocol in (("warm", "full"), ("cold", slice_protocol(report, "cold"))):
        fine = [name for name, num in report["num_cases"].items() if name.startswith(f"{side}_") and num]
        if fine and protocol in report["protocols"]:
            wanted.append((side, protocol, fine))
    if not wanted:
        return None
    rows = max(len(fine) for *_, fine in wanted) * (len(models_of(report)) + 1)
    drawn, panels = _figure(len(wanted), 1.2 + 0.16 * rows)
    for panel, (side, protocol, fine) in zip(panels, wanted, strict=True):
        labels = [(protocol, name, f"{LABELS[name]}\n({report['num_cases'][name]:,} cases)") for name in fine]
        _rows_of_intervals(panel, report, labels)
        _title(panel, f"{side.capitalize()} cases, {_plain(protocol)}")
    _legend(drawn, panels[0])
    return drawn


def _rows_of_intervals(panel: Axes, report: Mapping[str, Any], rows: Sequence[tuple[str, str, str]]) -> None:
    """One group of intervals a row (protocol, slice, label), one interval a model."""
    models = models_of(report)
    step = len(models) + 1
    for number, model in enumerate(models):
        for place, (protocol, slice_name, _) in enumerate(rows):
            cell = figure(report, protocol, model, slice_name, METRIC)
            if cell is None:
                continue
            colour, height = COLOURS[number % len(COLOURS)], place * step + number
            panel.plot([cell["low"], cell["high"]], [height, height], color=colour, linewidth=2)
            panel.plot(
                [cell["mean"]],
                [height],
                color=colour,
                marker=MARKERS[number % len(MARKERS)],
                markersize=5.5,
                linestyle="none",
                clip_on=False,
                label=_plain(model) if place == 0 else None,
            )
    panel.set_yticks(
        [place * step + (len(models) - 1) / 2 for place in range(len(rows))], [row[2] for row in rows]
    )
    for place in range(1, len(rows)):
        panel.axhline(place * step - 1, color=GRID, linewidth=0.8)
    panel.grid(visible=False, axis="y")
    panel.set_ylim(len(rows) * step - 0.8, -1.2)
    panel.set_xlim(left=0)
    panel.set_xlabel("Recall@10", fontsize=10, color=INK)


def slice_protocol(report: Mapping[str, Any], side: str) -> str:
    """The protocol under which the finer slices of a side are shown."""
    return "cold_only" if side == "cold" and "cold_only" in report["protocols"] else "full"


def _plain(name: str) -> str:
    return literal(name.replace("_", " "))
