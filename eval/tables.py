"""Rewrites the tables of README.md and docs/ from eval/results: `python eval/tables.py` (or `make tables`).

A table stands between `<!-- table NAME -->` and `<!-- end -->`; `--check` exits with 1 where it is out of date.
"""

import re
import sys
from pathlib import Path
from typing import Any

import scale_tables
from pressmark.evaluation.report import figure, models_of, short
from pressmark.files import read_json

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

COLUMNS = {
    "cold_start": [
        ("warm", "full", "recall_at_10", "warm R@10"),
        ("warm", "full", "ndcg_at_10", "warm N@10"),
        ("cold", "full", "recall_at_10", "cold R@10"),
        ("cold", "quota_0.1", "recall_at_10", "cold R@10, quota 0.1"),
        ("cold", "quota_0.3", "recall_at_10", "cold R@10, quota 0.3"),
        ("cold", "cold_only", "recall_at_10", "cold R@10, cold only"),
    ],
    "leave_one_out": [
        ("all", "full", "recall_at_5", "R@5"),
        ("all", "full", "recall_at_10", "R@10"),
        ("all", "full", "recall_at_20", "R@20"),
        ("all", "full", "ndcg_at_10", "N@10"),
        ("all", "full_unmasked", "recall_at_10", "R@10 unmasked"),
    ],
}
COLUMNS["temporal"] = COLUMNS["cold_start"]

PAIRED = [
    ("all", "full", "recall_at_10", "R@10"),
    *(one for one in COLUMNS["cold_start"] if one[2] == "recall_at_10"),
]
"""Columns of a table of differences, whose name ends in -paired; a split without cold cases has the first."""
OTHER_PAIRS = [("generator", "dual_tower"), ("dual_tower", "content_neighbours")]
"""Beside the hybrid with each of the others."""

ROWS: dict[str, list[tuple[str, str, str]]] = {
    "tokenizer": [
        ("perplexity_1", "perplexity 1", ".0f"),
        ("perplexity_4", "perplexity 4", ".0f"),
        ("items_sharing_a_sid", "items sharing a SID", ".3f"),
        ("share_relocated", "relocated", ".3f"),
        ("reconstruction_r2", "R2", ".3f"),
        ("spearman_neighbours", "Spearman, 50 neighbours", ".3f"),
        ("share_cosine90_code1", "cosine >= .9 share code 1", ".3f"),
        ("purity1_depth3", "purity, depth 3", ".3f"),
        ("lift_1", "lift, 1 code", ".1f"),
        ("lift_2", "lift, 2 codes", ".1f"),
    ],
    "decoding": [
        ("users_per_second", "users/s", ",.1f"),
        ("speedup_over_hf_dict", "times HF with a dict", ".1f"),
        ("time_over_gemm_limit", "time over the GEMM limit", ".2f"),
        ("peak_mib", "peak MiB", ",.0f"),
        ("peak_over_hf_dict", "of HF's", ".2f"),
        ("constraint_share", "the trie costs", "+.1%"),
        ("constraint_share_high", "at most", "+.1%"),
        ("filter_share", "with a filter", "+.1%"),
    ],
    "index": [
        ("bytes_per_item", "bytes an item", ".1f"),
        ("bytes_per_item_with_ids", "with ids", ".1f"),
        ("build_seconds", "built, s", ".2f"),
        ("save_seconds", "saved, s", ".2f"),
        ("open_seconds", "opened, s", ".3f"),
        ("insert_milliseconds", "an insert, ms", ".2f"),
        ("withdraw_milliseconds", "a withdrawal, ms", ".2f"),
        ("filter_seconds", "a filter, s", ".2f"),
    ],
    "training": [
        ("ndcg_at_10_reached_by_both", "N@10 reached by both", ".4f"),
        ("seconds_to_it", "seconds to it", ",.0f"),
        ("speedup", "times as fast", ".1f"),
        ("samples_per_second", "targets/s", ",.0f"),
        ("gflop_a_sample", "GFLOP a target", ".3f"),
        ("utilisation", "of the machine's rate", ".2f"),
        ("peak_mib", "peak MiB", ",.0f"),
        ("best_ndcg_at_10", "best N@10", ".4f"),
    ],
    "generator_ablation": [
        ("ndcg_at_10", "N@10", ".4f"),
        ("recall_at_10", "R@10", ".4f"),
        ("difference", "N@10 over the default", "+.4f"),
        ("half_interval", "+-", ".4f"),
        ("bought_0_2", "R@10, bought 0-2 times", ".3f"),
        ("bought_3_10", "3-10", ".3f"),
        ("bought_11_30", "11-30", ".3f"),
        ("bought_over_30", "more often", ".3f"),
    ],
    "dual_tower_ablation": [
        ("ndcg_at_10", "N@10", ".4f"),
        ("recall_at_10_warm", "warm R@10", ".4f"),
        ("recall_at_10_cold", "cold R@10", ".4f"),
        ("difference", "N@10 over the default", "+.4f"),
        ("half_interval", "+-", ".4f"),
        ("alignment", "alignment", ".3f"),
        ("uniformity", "uniformity", ".2f"),
        ("training_seconds", "seconds", ",.0f"),
        ("peak_gib", "peak GiB", ".2f"),
    ],
    "audit": [
        ("precision_at_recall_0.5", "precision at recall .5", ".3f"),
        ("precision_at_recall_0.7", "precision at recall .7", ".3f"),
        ("average_precision", "average precision", ".3f"),
    ],
    "audit_vouching": [
        ("precision_at_recall_0.5", "precision at recall .5", ".3f"),
        ("average_precision", "average precision", ".3f"),
    ],
    "categories": [
        ("leaf", "leaf", ".3f"),
        *((str(depth), f"depth {depth}", ".3f") for depth in range(1, 6)),
        ("sure", "names called sure", ".3f"),
        ("num", "products", ",.0f"),
    ],
    "terms": [
        ("recall", "recall", ".3f"),
        ("low", "at least", ".3f"),
        ("high", "at most", ".3f"),
        ("model_leads_by", "the model leads by", "+.3f"),
        ("lead_low", "at least", "+.3f"),
        ("lead_high", "at most", "+.3f"),
    ],
    "explorer": [
        ("page_mib", "page, MiB", ".1f"),
        ("open_seconds_median", "opens, s", ".2f"),
        ("open_seconds_max", "at most", ".2f"),
        ("open_cpu_seconds_median", "processor, s", ".2f"),
        ("search_ms_median", "a letter typed, ms", ",.0f"),
        ("search_ms_q95", "95 % of them", ",.0f"),
        ("search_cpu_ms_median", "processor, ms", ",.0f"),
        ("expand_ms_median", "a shelf opened, ms", ",.0f"),
        ("sort_ms_median", "sorted, ms", ",.0f"),
        ("load_before", "load of the machine", ".1f"),
    ],
    "backbones": [
        ("valid_warm_recall_at_10", "validation, warm R@10", ".4f"),
        ("valid_warm_ndcg_at_10", "N@10", ".4f"),
        ("test_warm_recall_at_10", "test, warm R@10", ".4f"),
        ("test_warm_ndcg_at_10", "N@10", ".4f"),
        ("test_cold_recall_at_10", "test, cold R@10", ".4f"),
        ("test_cold_only_ndcg_at_10", "cold only N@10", ".4f"),
        ("num_trained_parameters", "trained numbers", ",.0f"),
    ],
    "serving": [
        ("users_per_second", "users/s", ",.0f"),
        ("recall_at_10", "R@10", ".4f"),
        ("share_proven", "answers proven", ".3f"),
    ],
}
"""Of results that are rows: key, title, format."""
FILES = {"index-bench": "decoding-bench", "scale-plan": "scale-bench"}
"""Tables that show other rows of another table's file."""
OTHERS = ("tokenizer-bench", "training-beauty")
"""Results that the plan of docs/scale.md reckons with beside its own."""
NOTES = {
    "index": "One core; filters and withdrawals are random.",
    "tokenizer": "Means; least and greatest of the seeds in brackets.",
    "decoding": "One thread, a T5 of TIGER's size, encoder included. The trie's cost: "
    "median of pairs, and the upper end of its 95 % interval; the filter keeps a tenth of the catalog. "
    "Peak memory is beyond the weights.",
    "training": "Validation cases, seconds of training alone, float32.",
    "generator_ablation": "Validation with each shopper's last training item held back; history masked, "
    "item-level hits, 20 beams; 95 % intervals over cases.",
    "dual_tower_ablation": "Validation with each shopper's last training item and some items' every purchase "
    "held back; history masked, item-level hits, full ranking; 95 % intervals over cases.",
    "audit": "Labels moved on purpose among real ones, which hold mistakes too: precision is a lower bound. "
    "Least and greatest of the seeds in brackets.",
    "audit-grocery": "The store's own mistakes, all of them known; seeds are of the audit alone.",
    "audit_vouching": "Labels moved on purpose; least and greatest of the seeds in brackets.",
    "categories": "Accuracy of the leaf, of the first names of a path over products whose path is that "
    "long, and of the names called sure at .8. Least and greatest of the seeds in brackets.",
    "terms": "Test titles, all seeds together; 95 % intervals over titles.",
    "explorer": "Headless Chromium, from disk; until the next frame is painted.",
    "backbones": "Equal steps; item-level hits, history masked.",
    "serving": "Encoder included, one thread, k = 10, history masked, item-level hits.",
}


def label(kind: str, row: dict[str, Any]) -> str:
    """What a row is about; rows of one label are averaged. Empty: not in the table."""
    if kind == "tokenizer":
        return row["tokenizer"]
    if kind == "training":
        return row["engine"]
    if kind == "audit":
        known = row["method"] in ("pressmark", "cleanlab_self_confidence", "neighbours_vote", "codes_prefix")
        return f"{row['kind'].replace('_', ' ')} {row['noise']:.0%}, {row['method']}" if known else ""
    if kind == "audit_vouching":
        return f"{row['kind']} {row['noise']:.0%}, {row['method'].removeprefix('prefix_')}"
    if kind == "categories":
        return f"{row['hidden']} hidden, {row['method']}"
    if kind in ("generator_ablation", "dual_tower_ablation"):
        return row["change"]
    if kind == "backbones":
        return row["row"]
    if kind == "serving":
        return f"{row['engine']}, batch {row['batch']}"
    if kind == "terms":
        return f"{row['method']}, R@{row['k']}" if row["side"] == "test" else ""
    if kind == "explorer":
        return f"{row['num_products']:,} products"
    skewed = ", skewed" if row["skewed"] else ""
    if kind == "index":
        return f"{row['num_items']:,} items{skewed}" if row["engine"] == "index" else ""
    if row["engine"] != "pressmark" or row["skewed"] or row["num_items"] not in (100_000, 10_000_000):
        return ""
    return f"{row['num_items']:,} items, {row['dtype']}, batch {row['batch']}, beam {row['beam']}"


def table(name: str) -> str:
    """The Markdown table of eval/results/<name>.json with a line on where it came from."""
    path = ROOT / "eval" / "results" / f"{FILES.get(name, name.removesuffix('-paired'))}.json"
    if not path.is_file():
        return f"(not measured yet: `eval/results/{path.name}`)"
    result = read_json(path)
    if name.endswith("-paired"):
        return _paired_table(path.name, result)
    if name.startswith("scale-"):
        return _scale_table(name, result)
    if name.startswith("sids_compared"):
        return _sids_table(path.name, result)
    if "rows" in result:
        return _rows_table(name, result)
    columns = [
        one
        for one in COLUMNS[name.partition("-")[0]]
        if figure(result, one[1], models_of(result)[0], *one[::2][:1], one[2])
    ]
    lines = ["| | " + " | ".join(title for *_, title in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for model in models_of(result):
        cells = [_cell(figure(result, protocol, model, part, metric)) for part, protocol, metric, _ in columns]
        lines.append(f"| {model} | " + " | ".join(cells) + " |")
    counts = ", ".join(
        f"{result['num_cases'][one]:,} {one}" for one in ("warm", "cold") if result["num_cases"].get(one)
    )
    seeds = ", ".join(map(str, result["seeds"]))
    machine = f"{result['hardware']['cores']} cores of a {result['hardware']['cpu']}"
    source = f"`eval/results/{name}.json`: {counts} cases, seed {seeds}, {machine}, {result['date'][:10]}."
    cost = [sum(stages.values()) / 60 for stages in result.get("stage_seconds", {}).values()]
    if cost:
        source += f" Preparing and training took {sum(cost) / len(cost):.0f} minutes a seed."
    note = "95 % intervals in brackets; item-level hits, history masked."
    return "\n".join(lines) + f"\n\n<sub>{source} {note}</sub>"


def _sids_table(file: str, result: dict[str, Any]) -> str:
    """R@10 over each tokenizer's SIDs, and by how much it is above the first one's."""
    rows = {(row["tokenizer"], row["slice"], row["protocol"]): row for row in result["rows"]}
    names = list(dict.fromkeys(row["tokenizer"] for row in result["rows"]))
    columns = [one for one in PAIRED if (names[0], *one[:2]) in rows]
    first, *others = (one[-1] for one in columns)
    titles = [first, "N@10", *others, "items sharing their nearest SID"]
    lines = ["| | " + " | ".join(titles) + " |", "|---" * (len(titles) + 1) + "|"]
    for name in names:
        cells = []
        for one in columns:
            row = rows[(name, *one[:2])]
            more = _difference(*(row[key] for key in ("difference", "difference_low", "difference_high")))
            cells.append(short(row["recall_at_10"]) + (f" {more}" if name != names[0] else ""))
        row = rows[(name, *columns[0][:2])]
        cells = [cells[0], short(row["ndcg_at_10"]), *cells[1:], f"{row['items_sharing_a_sid']:.3f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    seeds = ", ".join(map(str, result["seeds"]))
    counts = ", ".join(f"{rows[(names[0], *one[:2])]['cases']:,} {one[0]}" for one in columns[:2])
    machine = f"{result['hardware']['cores']} cores of a {result['hardware']['cpu']}"
    source = f"`eval/results/{file}`: {counts} cases, seed {seeds}, {machine}, {result['date'][:10]}."
    note = f"R@10, and the difference from {names[0]}, bold where 95 % leave zero out."
    return (
        "\n".join(lines) + f"\n\n<sub>{source} {note} The same budget; item-level hits, history masked.</sub>"
    )


def _paired_table(file: str, result: dict[str, Any]) -> str:
    """What one model has more than another over the same cases; bold where the interval leaves zero out."""
    found = {
        (one["a"], one["b"], one["slice"], one["protocol"], one["metric"]): _difference(
            one["difference"], one["low"], one["high"]
        )
        for one in result["paired"]
    }
    pairs = [
        key
        for key in dict.fromkeys((one["a"], one["b"]) for one in result["paired"])
        if key[0] == "hybrid" or key in OTHER_PAIRS
    ]
    columns = PAIRED if result["num_cases"].get("cold") else PAIRED[:1]
    lines = ["| | " + " | ".join(one[-1] for one in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for a, b in pairs:
        cells = [found.get((a, b, *one[:3]), "") for one in columns]
        lines.append(f"| {a} - {b} | " + " | ".join(cells) + " |")
    return (
        "\n".join(lines) + f"\n\n<sub>`eval/results/{file}`: same cases; bold where 95 % leave zero out.</sub>"
    )


def _difference(mean: float, low: float, high: float) -> str:
    shown, *limits = (format(one, "+.4f").replace("0.", ".", 1) for one in (mean, low, high))
    return f"{f'**{shown}**' if low > 0 or high < 0 else shown} <sub>[{', '.join(limits)}]</sub>"


def _rows_table(name: str, result: dict[str, Any]) -> str:
    """Means of the rows of one label, with the least and the greatest in brackets."""
    kind = name.partition("-")[0]
    columns = ROWS[kind]
    made = _by_depth(result["rows"]) if kind == "categories" else result["rows"]
    lines = ["| | " + " | ".join(title for _, title, _ in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    labels = dict.fromkeys(label(kind, row) for row in made)
    for one in filter(None, labels):
        rows = [row for row in made if label(kind, row) == one]
        cells = []
        for key, _, form in columns:
            values = [row[key] for row in rows if row.get(key) is not None]
            if not values:
                cells.append("")
                continue
            mean, low, high = (
                format(value, form) for value in (sum(values) / len(values), min(values), max(values))
            )
            cells.append(mean if low == high else f"{mean} <sub>[{low}, {high}]</sub>")
        lines.append(f"| {one} | " + " | ".join(cells) + " |")
    seeds = ", ".join(map(str, result["seeds"]))
    machine = f"{result['hardware']['cores']} cores of a {result['hardware']['cpu']}"
    file = f"eval/results/{FILES.get(name, name)}.json"
    source = f"`{file}`: seeds {seeds}, {machine}, {result['date'][:10]}. {NOTES.get(name) or NOTES[kind]}"
    return "\n".join(lines) + f"\n\n<sub>{source}</sub>"


def _by_depth(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a method and seed: the accuracy at each depth under its name, and how many were asked about."""
    made: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        about = {key: row[key] for key in ("hidden", "method", "seed")}
        one = made.setdefault(tuple(about.values()), about)
        one[row["depth"]] = row["accuracy"]
        one["num"] = max(row["num"], one.get("num", 0))
    return list(made.values())


def _scale_table(name: str, result: dict[str, Any]) -> str:
    """What was measured at scale, or what more would take."""
    others = {one: read_json(ROOT / "eval" / "results" / f"{one}.json") for one in OTHERS}
    said = scale_tables.plan(result, others) if name == "scale-plan" else scale_tables.measured(result)
    machine = f"{result['hardware']['cores']} cores of a {result['hardware']['cpu']}"
    return f"{said}\n\n<sub>`eval/results/scale-bench.json`: {machine}, {result['date'][:10]}.</sub>"


def _cell(found: dict[str, Any] | None) -> str:
    if found is None or found["mean"] is None:
        return ""
    interval = (
        "" if found["low"] is None else f" <sub>[{short(found['low'], 3)}, {short(found['high'], 3)}]</sub>"
    )
    return short(found["mean"]) + interval


def main() -> None:
    """Rewrites the pages, or checks them."""
    pattern = re.compile(r"(<!-- table ([\w.-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
    stale = False
    for page in PAGES:
        old = page.read_text("utf-8")
        new = pattern.sub(lambda found: found[1] + table(found[2]) + "\n" + found[3], old)
        stale |= new != old
        if "--check" not in sys.argv:
            page.write_text(new, "utf-8")
    if "--check" in sys.argv:
        raise SystemExit(int(stale))


if __name__ == "__main__":
    main()
