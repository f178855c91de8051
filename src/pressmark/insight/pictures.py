"""The doctor's pictures: use of the codes, the tree of prefixes, and a map of the items.

Drawn by matplotlib's Agg without a display or global state; the same diagnosis gives the same bytes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from pressmark.drawing import GRID, INK, OTHER, QUIET, png
from pressmark.insight.doctor import Diagnosis, Patient
from pressmark.insight.places import MAP_ITEMS, place_items
from pressmark.insight.prefix_tree import draw_tree
from pressmark.insight.style import COLOURS, plain, top_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES = ("code_usage", "prefix_tree", "map")


def draw(patient: Patient, diagnosis: Diagnosis) -> dict[str, bytes]:
    """Name -> PNG, for each of NAMES that the run has enough items for."""
    pictures = {
        "code_usage": _code_usage(patient, diagnosis),
        "prefix_tree": draw_tree(patient.codes, patient.taxonomy, patient.catalog.title),
        "map": _map(patient, diagnosis.seed),
    }
    return {name: png(one) for name, one in pictures.items() if one is not None}


def _code_usage(patient: Patient, diagnosis: Diagnosis) -> Figure:
    """Items a code over the even share, codes from the commonest to the rarest; one panel a level."""
    from matplotlib.figure import Figure

    sizes = patient.quantizer.level_sizes
    columns = min(4, len(sizes))
    rows = math.ceil(len(sizes) / columns)
    drawn = Figure(figsize=(2.9 * columns + 0.6, 2.9 * rows + 0.6), layout="constrained")
    counts = [np.bincount(patient.codes[:, level], minlength=size) for level, size in enumerate(sizes)]
    loads = [np.sort(one)[::-1] * len(one) / one.sum() for one in counts]
    top = max(float(load.max()) for load in loads) * 1.5
    bottom = min(0.05, min(float(load[load > 0].min()) for load in loads) * 0.8)
    for level, load in enumerate(loads):
        panel = drawn.add_subplot(rows, columns, level + 1)
        _quiet(panel)
        place = np.arange(len(load) + 1)
        # Codes that no item has fall off the logarithmic scale: the step ends where the dead ones begin.
        heights = np.append(load, load[-1])
        heights = np.where(heights > 0, heights, bottom)
        panel.fill_between(place, bottom, heights, step="post", color=COLOURS[0], alpha=0.22, linewidth=0)
        panel.step(place, heights, where="post", color=COLOURS[0], linewidth=1.6)
        panel.axhline(1, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
        figures, num_dead = diagnosis.figures, int((load == 0).sum())
        if num_dead:
            panel.axvspan(len(load) - num_dead, len(load), color=COLOURS[1], alpha=0.25, linewidth=0)
        panel.set_yscale("log")
        panel.set_ylim(bottom, top)
        panel.set_xlim(0, len(load))
        panel.set_yticks(_powers(bottom, top), [f"{one:g}x" for one in _powers(bottom, top)])
        panel.set_yticks([], minor=True)
        panel.set_title(f"Level {level + 1}", loc="left", fontsize=11, fontweight="bold", color=INK, pad=20)
        unused = f", {num_dead} unused" if num_dead else ""
        panel.annotate(
            f"perplexity {figures[f'perplexity_{level + 1}']:.0f} of {len(load)}, "
            f"Gini {figures[f'gini_{level + 1}']:.2f}{unused}",
            (0, 1),
            (0, 6),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=8.5,
            color=QUIET,
        )
        panel.set_xlabel("codes, commonest first", fontsize=9, color=QUIET)
        if level % columns == 0:
            panel.set_ylabel("items a code over the even share", fontsize=9, color=QUIET)
    return drawn


def _powers(bottom: float, top: float) -> list[float]:
    return [10.0**power for power in range(math.ceil(math.log10(bottom)), math.floor(math.log10(top)) + 1)]


def _map(patient: Patient, seed: int) -> Figure | None:
    """t-SNE of a sample of items, by first code and by category, the same points twice."""
    from matplotlib.figure import Figure

    items, place = place_items(patient.vectors, seed, MAP_ITEMS)
    if len(items) == 0:
        return None
    code = patient.codes[items, 0]
    drawn = Figure(figsize=(11.6, 6.1), layout="constrained")
    left, right = drawn.add_subplot(1, 2, 1), drawn.add_subplot(1, 2, 2)
    dot: dict[str, Any] = {"s": 11 if len(items) > 500 else 22, "linewidths": 0}
    left.scatter(place[:, 0], place[:, 1], c=_hues(place, code), **dot)
    _title(
        left, f"By first code ({len(np.unique(code)):,} of {patient.quantizer.level_sizes[0]:,} in the sample)"
    )
    left.set_xlabel(
        "Every code has the hue of the spot where its items lie:\nsmooth is good, a speckle is an item whose "
        "code lives elsewhere.",
        fontsize=9,
        color=QUIET,
    )
    if patient.taxonomy.num_nodes:
        _by_category(right, place, patient, items, dot)
    else:
        right.scatter(place[:, 0], place[:, 1], c=OTHER, **dot)
        right.set_xlabel("The catalog has no categories.", fontsize=9, color=QUIET)
    _title(right, "By category")
    for panel in (left, right):
        panel.set_xticks([])
        panel.set_yticks([])
        panel.spines[:].set_visible(False)
        panel.set_aspect("equal", adjustable="datalim")
    drawn.suptitle(
        f"{len(items):,} of {len(patient.catalog):,} items, t-SNE of their vectors", fontsize=10, color=QUIET
    )
    return drawn


def _hues(place: np.ndarray, code: np.ndarray) -> np.ndarray:
    """(n, 3) colours: the angle and distance from the centre of the median place of each item's code."""
    from matplotlib.colors import hsv_to_rgb

    centre = np.empty_like(place)
    for one in np.unique(code):
        centre[code == one] = np.median(place[code == one], axis=0)
    hue = (np.arctan2(centre[:, 1], centre[:, 0]) / (2 * np.pi)) % 1
    distance = np.clip(np.linalg.norm(centre, axis=1), 0, 1)
    return hsv_to_rgb(np.stack([hue, 0.25 + 0.65 * distance, 0.92 - 0.22 * distance], axis=1))


def _by_category(
    panel: Axes, place: np.ndarray, patient: Patient, items: np.ndarray, dot: dict[str, Any]
) -> None:
    """The commonest categories at the first depth that tells items apart, the rest in grey."""
    node = patient.taxonomy.item_nodes[items, 0, 0]
    colours = top_colours(patient.taxonomy)
    rest = ~np.isin(node, list(colours))
    for one, colour in colours.items():
        here, name = node == one, plain(patient.taxonomy.node_path[one][-1])
        if here.any():
            panel.scatter(place[here, 0], place[here, 1], c=colour, label=name, **dot)
    if rest.any():
        panel.scatter(place[rest, 0], place[rest, 1], c=OTHER, label="other or none", zorder=0.5, **dot)
    legend = panel.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        ncols=4,
        frameon=False,
        fontsize=9,
        markerscale=2,
        handletextpad=0.2,
        columnspacing=1.2,
    )
    legend.set_in_layout(True)


def _title(panel: Axes, text: str) -> None:
    panel.set_title(text, loc="left", fontsize=11, fontweight="bold", color=INK)


def _quiet(panel: Axes) -> None:
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color("#9aa1a9")
    panel.grid(axis="y", color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(colors=INK, labelsize=8.5, length=0)
