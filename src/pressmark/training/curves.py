"""A training as a picture: its loss a step, and what validation said of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pressmark import drawing

POINTS = 200
"""Means that a loss curve is drawn by, at most."""


def curves(name: str, record: Mapping[str, Any]) -> bytes:
    """PNG of a training.

    Args:
        name: Of the stage.
        record: What `loop.fit` returns.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    losses = np.asarray(record["losses"], float)
    parts = np.array_split(losses, min(POINTS, max(1, len(losses))))
    steps = np.cumsum([len(part) for part in parts])
    left.plot(steps, [part.mean() for part in parts if len(part)], color=drawing.COLOURS[0])
    left.set(title=f"{drawing.literal(name)}: training loss", xlabel="step")
    validations = record["validations"]
    metrics = [key for key in (validations[-1] if validations else {}) if key.startswith(("ndcg", "recall"))]
    shown = metrics or [key for key in (validations[-1] if validations else {}) if key.endswith("_r2")]
    for metric, colour in zip(shown, drawing.COLOURS, strict=False):
        points = [(one["seconds"] / 60, one[metric]) for one in validations if metric in one]
        right.plot(*zip(*points, strict=True), marker="o", ms=3, color=colour, label=metric)
    if shown:
        right.legend(frameon=False)
    right.set(title="validation", xlabel="minutes of training")
    for axes in (left, right):
        axes.grid(color=drawing.GRID)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return drawing.png(figure)
