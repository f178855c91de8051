"""How fast the explorer opens and searches at 50,000 products, in headless Chromium.

    python eval/bench_explorer.py [--products 50000] [--chromium /usr/bin/chromium] [--record true]

A store of synthetic products is written (the grocery store's own, each under several brands), goes through
`prepare` and the tokenizer as any catalog does (three levels of 256 codes, few epochs: only the page is
measured) and through `pressmark report`. The page is then opened from disk, `--rounds` times afresh.

    open_seconds          from navigation until the page answers: data read, tree and table drawn
    first_paint_seconds   until the browser painted anything
    search_ms             from a letter typed to the next painted frame, over the letters of several queries
    open_cpu_seconds, search_cpu_ms    processor time of the page's own thread alone, whatever else runs
    expand_ms, sort_ms, scroll_ms    the same for opening the largest shelf, sorting by title, a jump down

Whatever else runs on the machine is in all of these but the processor times: `load` says how much that was.
"""

import argparse
import os
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pressmark import stages
from pressmark.catalog import grocery
from pressmark.catalog.grocery import write_grocery
from pressmark.cli import guarded, truth
from pressmark.evaluation.record import record
from pressmark.experiment import parse
from pressmark.insight.explorer.command import report

QUERIES = ("organic oat milk", "cheddar", "p1001316", "dark chocolate bar", "zzz")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
# A change and the time until it is painted: two frames, since the first callback runs before the paint.
PAINTED = """
(change) => new Promise((done) => {
  const start = performance.now();
  new Function(change)();
  requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start)));
})
"""
TYPED = """
const box = document.getElementById("search");
box.value = %r;
box.dispatchEvent(new Event("input"));
"""


def write_store(folder: Path, num_products: int) -> None:
    """Items and a few interactions, the same for the same number."""
    write_grocery(
        folder / "grocery", grocery.Config(num_products=grocery.MAX_PRODUCTS, num_shoppers=50, months=1)
    )
    base = pl.read_parquet(folder / "grocery" / "items.parquet")
    rounds = -(-num_products // len(base))
    items = (
        pl.concat([base.with_columns(pl.lit(number).alias("round")) for number in range(rounds)])
        .head(num_products)
        .with_columns(
            pl.format("{}-{}", "item_id", "round").alias("item_id"),
            pl.format("{} No. {}", pl.col("title").fill_null(""), "round").alias("title"),
            pl.format("{} {}", pl.col("brand").fill_null("House"), "round").alias("brand"),
        )
        .drop("round")
    )
    bought = np.random.default_rng(0).choice(num_products, 2_000)
    events = pl.DataFrame(
        {
            "user_id": [f"u{number // 5}" for number in range(2_000)],
            "item_id": items["item_id"].gather(bought),
            "timestamp": np.arange(2_000) * 60,
        }
    )
    items.write_parquet(folder / "items.parquet")
    events.write_parquet(folder / "interactions.parquet")


def make_page(place: Path, num_products: int) -> dict[str, float]:
    """Runs everything up to the page; seconds of its stages."""
    write_store(place / "store", num_products)
    values: dict[str, object] = {
        "name": "explorer",
        "data.path": place / "store",
        "run_dir": place / "run",
        "split.protocol": "leave_one_out",
        "vectors.model": "tfidf",
        "vectors.columns": "[title, brand, category]",
        "vectors.dim": 64,
        "tokenizer.level_sizes": "[256,256,256]",
        "tokenizer.training.num_epochs": 2,
        "tokenizer.training.log_with": "",
    }
    arguments = ["--config", "configs/own.yaml"]
    for key, value in values.items():
        arguments += [f"--{key}", str(value)]
    start = time.perf_counter()
    stages.train_tokenizer(parse(arguments)[0])
    trained = time.perf_counter()
    report(["--run", str(place / "run"), "--out", str(place / "explorer.html"), "--title", "Synthetic store"])
    return {"prepare_and_tokenize": trained - start, "report": time.perf_counter() - trained}


def measure(path: Path, chromium: str) -> dict[str, Any]:
    """One visit."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 860})
        inside = page.context.new_cdp_session(page)
        inside.send("Performance.enable", {"timeDomain": "threadTicks"})
        start = time.perf_counter()
        page.goto(path.resolve().as_uri(), wait_until="commit")
        page.wait_for_selector("body[data-ready]", timeout=120_000)
        opened = time.perf_counter() - start
        cpu = busy(inside)
        paint = (
            page.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0") / 1000
        )
        before = busy(inside)
        typed = [query[: end + 1] for query in QUERIES for end in range(len(query))]
        searches = [page.evaluate(PAINTED, TYPED % text) for text in typed]
        searched = busy(inside) - before
        page.evaluate(PAINTED, TYPED % "")
        found = {
            "open_cpu_seconds": cpu,
            "search_cpu_ms": 1000 * searched / len(typed),
            "open_seconds": opened,
            "first_paint_seconds": paint,
            "search_ms": searches,
            "expand_ms": page.evaluate(PAINTED, "document.querySelector('#tree .twist').click()"),
            "sort_ms": page.evaluate(PAINTED, "document.querySelector('[data-column=title] button').click()"),
            "scroll_ms": page.evaluate(PAINTED, "document.getElementById('table').scrollTop = 1e6"),
        }
        browser.close()
    return found


def busy(inside: Any) -> float:
    """Seconds of processor time that the page's thread has used."""
    metrics = inside.send("Performance.getMetrics")["metrics"]
    return next(float(one["value"]) for one in metrics if one["name"] == "TaskDuration")


def summary(visits: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over visits; of searches the median, the 95 % quantile and the slowest."""
    searches = np.concatenate([one["search_ms"] for one in visits])
    found = {
        f"{name}_{kind}": float(of([one[name] for one in visits]))
        for name in visits[0]
        if name != "search_ms"
        for kind, of in (("median", np.median), ("max", np.max))
    }
    return found | {
        "search_ms_median": float(np.median(searches)),
        "search_ms_q95": float(np.quantile(searches, 0.95)),
        "search_ms_max": float(searches.max()),
        "num_searches": len(searches),
    }


def main() -> None:
    """Measures and prints; records where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5, help="visits (default: 5)")
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="the browser's program")
    parser.add_argument("--page", type=Path, help="measure this page instead of making one")
    parser.add_argument(
        "--record", type=truth, default=False, help="true: write eval/results/explorer-bench.json"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.page or Path(folder) / "explorer.html"
        made = {} if options.page else make_page(Path(folder), options.products)
        load = [os.getloadavg()[0]]
        visits = [measure(path, options.chromium) for _ in range(options.rounds)]
        load.append(os.getloadavg()[0])
        row = {
            "num_products": options.products,
            "page_mib": path.stat().st_size / 2**20,
            "load_before": load[0],
            "load_after": load[1],
            **{f"{name}_seconds": value for name, value in made.items()},
            **summary(visits),
        }
    for name, value in row.items():
        print(f"{name:28} {value:,.3f}" if isinstance(value, float) else f"{name:28} {value:,}")
    if options.record:
        settings = {"rounds": options.rounds, "queries": list(QUERIES), "chromium": FLAGS}
        record("explorer", "bench", [row], shlex.join(["python", *sys.argv]), settings, [0])
        print("recorded: eval/results/explorer-bench.json")


if __name__ == "__main__":
    guarded(main)
