"""`pressmark explain`: a product's SID in words, in one run or in two side by side."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from pressmark.insight.command import number
from pressmark.insight.explain import (
    Explanation,
    LabelledRun,
    Step,
    explain,
    find_item,
    read_labelled,
    shared_codes,
)
from pressmark.insight.relatives import deep

WIDTH, GAP = 110, 3
MOST_TIMES = 1000


def explain_items(arguments: Sequence[str]) -> None:
    """Runs the command.

    Raises:
        ValueError: For a run that cannot be read, or items that a run does not have, when the others are said.
    """
    options = _parser().parse_args(arguments)
    if options.k < 1:
        raise ValueError(f"--k is {options.k}; it must be at least 1.")
    runs = [read_labelled(one) for one in (options.run, options.beside) if one]
    rows, unknown = {}, {}
    for one in options.item_id:
        try:
            rows[one] = [find_item(run.patient.catalog, one, run.run) for run in runs]
        except ValueError as error:
            unknown[one] = str(error)
    for place, items in enumerate(rows.values()):
        print(("\n" if place else "") + text_of(runs, items, options.k), flush=True)
    if unknown:
        raise ValueError("\n".join(unknown.values()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pressmark explain",
        description="Why a product has its SID, its substitutes, and its cousins in other categories.",
    )
    parser.add_argument("--run", type=Path, required=True, help="run folder with a trained tokenizer")
    parser.add_argument(
        "--and",
        dest="beside",
        type=Path,
        metavar="RUN",
        help="another run over the same catalog, side by side: another flavour of SIDs",
    )
    parser.add_argument("--k", type=int, default=5, help="substitutes and cousins to name (default: 5)")
    parser.add_argument("item_id", nargs="+", help="item ids as the catalog has them")
    return parser


def text_of(runs: Sequence[LabelledRun], items: Sequence[int], most: int) -> str:
    """One item in one run or two.

    Args:
        runs: One or two runs.
        items: Its item_index in each.
        most: Substitutes and cousins to name.
    """
    found = [explain(run, item, most) for run, item in zip(runs, items, strict=True)]
    width = (WIDTH - GAP * (len(runs) - 1)) // len(runs)
    columns = [_column(run, one, width) for run, one in zip(runs, found, strict=True)]
    lines = _head(runs[0], items[0])
    for blocks in zip(*columns, strict=True):
        if any(blocks):
            lines += ["", *_side_by_side(blocks, width)]
    if len(runs) == 2:
        lines += ["", *_agreement(runs, found)]
    return "\n".join(lines)


def _head(run: LabelledRun, item: int) -> list[str]:
    catalog = run.patient.catalog
    paths = [" > ".join(path) for path in catalog.category[item]]
    facts = [str(catalog.item_id[item]), catalog.brand[item], " | ".join(paths) or "no category"]
    return [catalog.title[item] or "(no title)", "  ".join(one for one in facts if one)]


def _column(run: LabelledRun, one: Explanation, width: int) -> list[list[str]]:
    """What a run says, in blocks that stand side by side with another run's."""
    sid = "_".join(str(step.code) for step in one.steps)
    head = [f"SID {sid}", *_wrap(run.run, width)]
    if run.reads_category and run.patient.catalog.category[one.item]:
        head += _wrap("its category went into its vector: these codes do not vouch for it", width)
    steps = [line for place, step in enumerate(one.steps) for line in _step(run, one, place, step, width)]
    moved = _moved(run, one, width)
    num_codes = deep(len(one.steps))
    codes = "1 code" if num_codes == 1 else f"{num_codes} codes"
    return [
        head,
        steps,
        moved,
        _list(run, one, one.substitutes, f"substitutes ({codes} or more in common)", width),
        _list(run, one, one.cousins, "cousins in other categories", width, _no_cousins(run, one)),
    ]


def _step(run: LabelledRun, one: Explanation, place: int, step: Step, width: int) -> list[str]:
    prefix = "_".join(str(before.code) for before in one.steps[: place + 1])
    count = "this product alone" if step.num_items == 1 else f"{step.num_items:,} products"
    lines = _wrap(f"{prefix}  {count}" + (f": {step.label}" if step.num_items > 1 else ""), width)
    if step.num_items > 1:
        mix = ", ".join(f"{path[-1]} {share:.0%}" for path, share in step.mix)
        lines += _wrap(mix, width, 4)
    examples = [item for item in run.labels.examples[step.prefix] if item != one.item]
    if step.num_items > 2 and examples:
        lines += _wrap(f"such as {_title(run, examples[0])}", width, 4)
    if step.said and step.num_items > 1:
        lines += _wrap(f"its title says {', '.join(step.said)}", width, 4)
    if step.explained is not None:
        text = f"accounts for {step.explained:.0%} of its content so far"
        if step.runner_up >= 0:
            word = "next best" if step.times_as_far >= 1 else "nearer was"
            # What the code leaves over is nothing: a ratio to it says no more.
            exact = step.times_as_far > MOST_TIMES
            text += f", exactly; {word} {step.runner_up}" if exact else f"; {word} {step.runner_up}"
            text += "" if exact else f", {number(step.times_as_far)} times as far"
            text += f" ({step.runner_up_label})" if step.runner_up_label else " (no product there)"
        lines += _wrap(text, width, 4)
    elif place >= run.patient.codes.shape[1]:
        lines += _wrap("tells products with equal codes apart", width, 4)
    else:
        lines += _wrap("it has no text, so its codes mean nothing", width, 4)
    return lines


def _moved(run: LabelledRun, one: Explanation, width: int) -> list[str]:
    if not one.nearest:
        return []
    nearest = "_".join(map(str, one.nearest))
    if not one.holders:
        return _wrap(f"Its nearest codes would be {nearest}; it was given others.", width)
    titles = ", ".join(_title(run, item) for item in one.holders[:2])
    return _wrap(
        f"Its nearest codes, {nearest}, belong to {titles}: of two products with the same codes one takes the "
        "next best.",
        width,
    )


def _no_cousins(run: LabelledRun, one: Explanation) -> str:
    taxonomy = run.patient.taxonomy
    if taxonomy.num_nodes == 0:
        return "the catalog has no categories"
    if taxonomy.num_nodes == 1:
        return "the catalog has one category"
    if taxonomy.path_length[one.item, 0] == 0:
        return "the product has no category"
    leaf = taxonomy.item_leaf[run.prefixes.items(int(run.prefixes.of_item[one.item, 1])), 0]
    if (leaf >= 0).sum() == 1:
        return "no other product with its first code has a category"
    return "none but those above: all others with its first code " + (
        "are of its own kind" if (leaf >= 0).all() else "that have a category are of its own kind"
    )


def _list(
    run: LabelledRun, one: Explanation, items: Sequence[int], title: str, width: int, empty: str = "none"
) -> list[str]:
    lines = [title]
    for item in items:
        sid = run.patient.table.sids
        shared = shared_codes(sid, one.item, item)
        leaf = run.patient.taxonomy.item_leaf[item, 0]
        where = f" [{run.patient.taxonomy.node_path[leaf][-1]}]" if leaf >= 0 else ""
        codes = "_".join(map(str, sid[item, : max(shared, 1)]))
        lines += _wrap(f"{codes}  {_title(run, item)}{where}  {run.patient.catalog.item_id[item]}", width, 2)
    return lines if items else [*lines, *_wrap(empty, width, 2)]


def _agreement(runs: Sequence[LabelledRun], found: Sequence[Explanation]) -> list[str]:
    """What both runs say of the item."""
    lines = []
    for name in ("substitutes", "cousins"):
        ids = [
            [str(run.patient.catalog.item_id[item]) for item in getattr(one, name)]
            for run, one in zip(runs, found, strict=True)
        ]
        both = [one for one in ids[0] if one in ids[1]]
        lines.append(f"{name} in both: {', '.join(both) if both else 'none'}")
    return lines


def _title(run: LabelledRun, item: int) -> str:
    return textwrap.shorten(run.patient.catalog.title[item] or "(no title)", 60, placeholder=" ...")


def _wrap(text: str, width: int, indent: int = 0) -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=" " * indent, subsequent_indent=" " * (indent + 2), break_on_hyphens=False
    )


def _side_by_side(blocks: Sequence[Sequence[str]], width: int) -> list[str]:
    rows = zip_longest(*blocks, fillvalue="")
    return [(" " * GAP).join(one.ljust(width) for one in row).rstrip() for row in rows]
