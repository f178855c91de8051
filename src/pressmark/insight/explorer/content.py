"""What the page knows, as columns: products in order of SID, prefixes as ranges of them, a map, flags.

The page works the rest out itself: the children of a prefix, its mix of categories, what a search finds.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from pressmark.catalog.taxonomy import Taxonomy
from pressmark.insight.explain import LabelledRun
from pressmark.insight.explorer.flags import Flag
from pressmark.insight.places import place_items
from pressmark.insight.relatives import deep, relatives
from pressmark.insight.style import COLOURS, top_colours

RELATIVES = 6
"""Substitutes and cousins that the page names."""
MAP_UNITS = 2_000
"""Places on the map are whole numbers from 0 to this."""


def content(labelled: LabelledRun, flags: Sequence[Flag], seed: int = 0) -> dict[str, Any]:
    """Everything that the page shows of products and prefixes, as JSON-like values.

    A product is named by its position: its place in order of SID.

    Args:
        labelled: The run.
        flags: Of the audit; those of unknown products are left out and counted.
        seed: Of the map.
    """
    patient, order = labelled.patient, labelled.prefixes.order
    position = np.empty_like(order)
    position[order] = np.arange(len(order))
    return {
        "num_levels": int(labelled.prefixes.sids.shape[1]),
        "deep": deep(labelled.prefixes.sids.shape[1]),
        "items": _items(labelled, position),
        "categories": _categories(patient.taxonomy),
        "prefixes": _prefixes(labelled, position),
        "map": _map(labelled, position, seed),
        "flags": _flags(flags, {str(patient.catalog.item_id[row]): at for at, row in enumerate(order)}),
    }


def packed(value: Any) -> str:
    """JSON, gzipped, in base64; the same value gives the same text."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def _items(labelled: LabelledRun, position: np.ndarray) -> dict[str, Any]:
    patient, order = labelled.patient, labelled.prefixes.order
    catalog, taxonomy = patient.catalog, patient.taxonomy
    near = relatives(labelled.prefixes, taxonomy, patient.vectors, order, RELATIVES)
    substitutes, cousins = (np.where(one >= 0, position[one], -1) for one in near)
    brands = sorted({str(one) for one in catalog.brand})
    number = {brand: at for at, brand in enumerate(brands)}
    return {
        "id": [str(one) for one in catalog.item_id[order]],
        "title": [str(one) for one in catalog.title[order]],
        "brands": brands,
        "brand": [number[one] for one in catalog.brand[order]],
        "sid": labelled.prefixes.sids[order].ravel().tolist(),
        "category": taxonomy.item_leaf[order, 0].tolist(),
        "cold": np.flatnonzero(patient.split.cold[order]).tolist(),
        "substitutes": substitutes.ravel().tolist(),
        "cousins": cousins.ravel().tolist(),
        "num_relatives": RELATIVES,
    }


def _categories(taxonomy: Taxonomy) -> dict[str, Any]:
    """Each node's path, and the number of its top node's colour, -1 without one."""
    colours = list(top_colours(taxonomy))
    top = {taxonomy.node_path[node][0]: at for at, node in enumerate(colours)}
    return {
        "path": [list(path) for path in taxonomy.node_path],
        "colour": [top.get(path[0], -1) for path in taxonomy.node_path],
        "colours": list(COLOURS[: len(colours)]),
        "tops": [taxonomy.node_path[node][0] for node in colours],
    }


def _prefixes(labelled: LabelledRun, position: np.ndarray) -> dict[str, Any]:
    """Those of several items; of the others the page shows the item."""
    prefixes, labels = labelled.prefixes, labelled.labels
    kept = np.flatnonzero((prefixes.num_items > 1) & (prefixes.length > 0))
    return {
        "length": prefixes.length[kept].tolist(),
        "start": prefixes.start[kept].tolist(),
        "end": prefixes.end[kept].tolist(),
        "terms": ["|".join(labels.terms[one]) for one in kept],
        "examples": [position[list(labels.examples[one])].tolist() for one in kept],
    }


def _map(labelled: LabelledRun, position: np.ndarray, seed: int) -> dict[str, Any]:
    items, place = place_items(labelled.patient.vectors, seed)
    units = np.rint((place + 1) / 2 * MAP_UNITS).astype(np.int64)
    return {
        "item": position[items].tolist(),
        "x": units[:, 0].tolist(),
        "y": units[:, 1].tolist(),
        "units": MAP_UNITS,
    }


def _flags(flags: Sequence[Flag], position: dict[str, int]) -> dict[str, Any]:
    known = [one for one in flags if one.item_id in position]
    return {
        "item": [position[one.item_id] for one in known],
        "suggested": [one.suggested_path for one in known],
        "confidence": [one.confidence for one in known],
        "severity": [one.severity for one in known],
        "num_unknown": len(flags) - len(known),
    }
