"""The picture of an audit study: precision against recall, and calibration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pressmark import files
from pressmark.drawing import COLOURS, GRID, png


def picture(every: dict[tuple[float, str], Any], calibration: list[dict[str, Any]], place: Path) -> None:
    """Precision-recall curves of the rate next to 5 %, and calibration there.

    Args:
        every: (rate, kind) -> method -> recalls and precisions.
        calibration: Bins, with their rate (`noise`) and kind.
        place: PNG file to write.
    """
    from matplotlib.figure import Figure

    shown = ("pressmark", "cleanlab_self_confidence", "neighbours_vote", "codes_prefix")
    shown_rate = min((rate for rate, _ in every), key=lambda rate: abs(rate - 0.05))
    curves = {key: one for key, one in every.items() if key[0] == shown_rate}
    drawn = Figure(figsize=(4 * (len(curves) + 1), 3.8), layout="constrained")
    panels = drawn.subplots(1, len(curves) + 1, squeeze=False)[0]
    for panel, ((rate, kind), own) in zip(panels, curves.items(), strict=False):
        for colour, method in zip(COLOURS, shown, strict=False):
            panel.step(*own[method], where="pre", color=colour, label=method.replace("_", " "))
        panel.set(
            title=f"{kind.replace('_', ' ')}, {rate:.1%} of the labels",
            xlabel="recall",
            ylabel="precision",
            ylim=(0, 1.02),
        )
    panels[0].legend(frameon=False, fontsize=8)
    last = panels[-1]
    last.plot([0, 1], [0, 1], color=GRID)
    for colour, kind in zip(COLOURS, dict.fromkeys(key[1] for key in curves), strict=False):
        bins = [one for one in calibration if one["kind"] == kind and one["noise"] == shown_rate]
        lows = sorted({one["low"] for one in bins})
        pooled = [[one for one in bins if one["low"] == low] for low in lows]
        mean = lambda own, key: sum(one[key] * one["num"] for one in own) / sum(one["num"] for one in own)  # noqa: E731
        last.plot(
            [mean(own, "confidence") for own in pooled],
            [mean(own, "share_wrong") for own in pooled],
            "o-",
            color=colour,
            markersize=4,
            label=kind.replace("_", " "),
        )
    last.set(title="calibration", xlabel="confidence that the label is wrong", ylabel="share that was moved")
    last.legend(frameon=False, fontsize=8)
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
    with files.replacing(place) as partial:
        partial.write_bytes(png(drawn))
