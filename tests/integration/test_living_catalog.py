"""A catalog that lives: products come and go in a trained run, by the commands that a user types."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.integration.tiny import tiny_arguments

import pressmark
from pressmark import living, stages
from pressmark.catalog.grocery import Config, write_grocery
from pressmark.cli import main
from pressmark.experiment import parse
from pressmark.files import file_hash, holding, read_json, write_json
from pressmark.hybrid.trend import PLACE
from pressmark.load import LOADERS
from pressmark.sids.table import read_register

NUM_LATER = 40
SMALL = {
    "tokenizer.training.num_epochs": 2,
    "generator.training.num_epochs": 1,
    "dual_tower.training.num_epochs": 1,
    "sasrec.training.num_epochs": 1,
    "hybrid.num_cases": 100,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`run`, trained without 40 products of a store; these in `later.parquet`."""
    place = tmp_path_factory.mktemp("living")
    write_grocery(place / "store", Config(num_products=240, num_shoppers=80, months=3))
    items = pl.read_parquet(place / "store" / "items.parquet")
    bought = pl.read_parquet(place / "store" / "interactions.parquet")
    later = np.zeros(len(items), bool)
    later[np.random.default_rng(0).choice(len(items), NUM_LATER, replace=False)] = True
    items.filter(pl.Series(later)).write_parquet(place / "later.parquet")
    known = items.filter(pl.Series(~later))
    (place / "own").mkdir()
    known.write_parquet(place / "own" / "items.parquet")
    bought.filter(pl.col("item_id").is_in(known["item_id"].implode())).write_parquet(
        place / "own" / "interactions.parquet"
    )
    stages.evaluate(experiment(place, place / "run"))
    return place


def experiment(place: Path, run: Path) -> Any:
    own = {"data.source": "folder", "data.path": place / "own", "run_dir": run}
    return parse(tiny_arguments(place, **{**own, **SMALL}))[0]


@pytest.fixture
def run(place: Path, tmp_path: Path) -> Path:
    shutil.copytree(place / "run", tmp_path / "run")
    return tmp_path / "run"


def part(place: Path, folder: Path, start: int, stop: int, name: str = "new.parquet") -> Path:
    pl.read_parquet(place / "later.parquet")[start:stop].write_parquet(folder / name)
    return folder / name


def append(run: Path, items: Path, *more: str) -> None:
    main(["tokenize", "--run", str(run), "--items", str(items), "--append", *more])


def recommended(run: Path, folder: Path, *more: str, history: list[str] | None = None) -> list[str]:
    (folder / "h.jsonl").write_text(json.dumps({"user_id": "u", "history": history or []}) + "\n")
    arguments = ["--run", str(run), "--histories", str(folder / "h.jsonl"), "--out", str(folder / "r.parquet")]
    main(["recommend", *arguments, *more])
    return pq.read_table(folder / "r.parquet")["item_id"].to_pylist()


def test_appended_products_are_recommended_and_nothing_else_changes(
    place: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = read_register(run / "tokenizer" / "sids.parquet")
    data = {path: file_hash(path) for path in (run / "data").iterdir()}
    for start, stop in ((20, 40), (0, 10), (10, 20)):
        append(run, part(place, tmp_path, start, stop))
    said = capsys.readouterr().out
    assert "version 3, 10 products appended, 240 listed" in said
    # So small a catalog is learned by heart: what the verdict is, tests/tokenizer/test_drift.py asks.
    assert said.count("verdict: ") == 3
    after = read_register(run / "tokenizer" / "sids.parquet")
    assert (after.table.sids[: len(before)] == before.table.sids).all()
    assert len(np.unique(after.table.sids, axis=0)) == len(after) == 240
    assert {path: file_hash(path) for path in (run / "data").iterdir()} == data

    later = pq.read_table(place / "later.parquet")["item_id"].to_pylist()
    shop = pressmark.load(run)
    in_order = [*sorted(later[20:40]), *sorted(later[:10]), *sorted(later[10:20])]
    assert shop.catalog.item_id[200:].tolist() == in_order
    assert shop.catalog.item_id[:200].tolist() == pressmark.load(place / "run").catalog.item_id.tolist()
    assert len(shop.recommend([later[:3]], k=240)[0]) == 237
    history = shop.catalog.item_id[:3].tolist()
    now, then = (dict(one.recommend([history], k=240)[0]) for one in (shop, pressmark.load(place / "run")))
    assert len(then) == 197
    # Scores are shares of the catalog: what is new takes some of the others'.
    assert sum(np.exp(score) for score in now.values()) < 1 + 1e-4
    assert sum(np.exp(now[item]) for item in then) < sum(np.exp(score) for score in then.values()) - 1e-3
    for model in ("generator", "content_neighbours", "dual_tower", "hybrid"):
        found = recommended(run, tmp_path, "--filter", "appended", "--model", model, history=later[:3])
        assert len(found) == 10
        assert set(found) <= set(later[3:])
        split_cold = set(pq.read_table(run / "data" / "cold_items.parquet")["item_id"].to_pylist())
        kinds = {one: recommended(run, tmp_path, "--filter", one, "--k", "240") for one in ("cold", "warm")}
        assert set(kinds["cold"]) == split_cold | set(later)
        assert set(kinds["warm"]) == set(shop.catalog.item_id) - split_cold - set(later)
    for model in ("sasrec", "popularity"):
        assert not set(recommended(run, tmp_path, "--model", model, "--k", "240")) & set(later)
        assert pressmark.load(run, model).recommend([later[:3]], k=3) == pressmark.load(run, model).recommend(
            [[]], 3
        )


def test_the_evaluation_and_the_training_stages_see_the_run_as_before(
    place: Path, run: Path, tmp_path: Path
) -> None:
    report = read_json(run / "evaluation" / "report.json")
    append(run, place / "later.parquet")
    (tmp_path / "ids.txt").write_text("\n".join(pressmark.load(place / "run").catalog.item_id[:5]))
    main(["tokenize", "--run", str(run), "--remove", str(tmp_path / "ids.txt"), "--free"])
    shutil.rmtree(run / "evaluation")
    assert stages.evaluate(experiment(place, run)) == report
    shutil.rmtree(run / "generator")
    (run / "stages" / "generator.json").unlink()
    shutil.rmtree(run / "evaluation")
    again = stages.evaluate(experiment(place, run))
    assert again["protocols"] == report["protocols"]
    assert read_json(run / "generator" / "metrics.json")["sid_version"] == 2


def test_removed_products_are_not_recommended_under_any_filter(place: Path, run: Path, tmp_path: Path) -> None:
    append(run, place / "later.parquet")
    own = pressmark.load(run).catalog.item_id[:200].tolist()
    later = pressmark.load(run).catalog.item_id[200:].tolist()
    gone = [own[0], own[7], later[0]]
    pq.write_table(pa.table({"item_id": gone}), tmp_path / "gone.parquet")
    main(["tokenize", "--run", str(run), "--remove", str(tmp_path / "gone.parquet")])
    for model in ("hybrid", "generator", "content_neighbours", "dual_tower", "popularity"):
        known = 200 if model == "popularity" else 240
        found = recommended(run, tmp_path, "--model", model, "--k", "240", history=gone[:1])
        assert len(found) == known - sum(one in (own + later)[:known] for one in gone)
        assert not set(found) & set(gone)
    assert set(recommended(run, tmp_path, "--filter", "appended", "--k", "240")) == set(later[1:])
    shop = pressmark.load(run)
    shop.filters["some"] = np.isin(shop.catalog.item_id, [own[0], own[1]])
    assert [one.item_id for one in shop.recommend([[]], filter="some")[0]] == [own[1]]
    assert set(shop.filters) == {"some"}
    with pytest.raises(ValueError, match="filter 'none' is not registered"):
        shop.recommend([[]], filter="none")


def test_a_freed_sid_goes_to_a_new_product_and_only_that_is_recommended(
    place: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    append(run, part(place, tmp_path, 0, 10))
    first = pl.read_parquet(place / "later.parquet")[:1]
    (tmp_path / "ids.txt").write_text(first["item_id"][0] + "\n")
    main(["tokenize", "--run", str(run), "--remove", str(tmp_path / "ids.txt"), "--free"])
    assert f"(was {first['item_id'][0]})" in capsys.readouterr().out
    twin = first.with_columns(item_id=pl.lit("twin"))
    twin.write_parquet(tmp_path / "twin.parquet")
    append(run, tmp_path / "twin.parquet")
    register = read_register(run / "tokenizer" / "sids.parquet")
    sid = dict(zip(register.item_id, map(tuple, register.table.sids.tolist()), strict=True))
    assert sid["twin"] == sid[first["item_id"][0]]
    found = recommended(run, tmp_path, "--k", "240")
    assert "twin" in found
    assert first["item_id"][0] not in found


def test_the_same_product_shifted_says_retrain(
    place: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = pl.format("stainless steel bolt {} for machines of type {}", pl.int_range(pl.len()), pl.lit("Xq"))
    blank = {"title": words, "brand": words, "description": words, "category": pl.lit([["Tools"]])}
    items = pl.read_parquet(place / "later.parquet")
    items.with_columns(**{name: blank[name] for name in blank if name in items.columns}).write_parquet(
        tmp_path / "bolts.parquet"
    )
    append(run, tmp_path / "bolts.parquet")
    assert "verdict: retrain\n- this append: median reconstruction error is" in capsys.readouterr().out
    drift = read_json(run / "tokenizer" / "manifest.json")["versions"][1]["details"]["drift"]
    assert drift["verdict"] == "retrain"
    assert drift["limits"]["max_error_ratio"] == 1.3


def test_churn_prints_a_table_and_writes_json(
    place: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    append(run, place / "later.parquet")
    out = tmp_path / "churn.json"
    main(["churn", "--old", str(place / "run"), "--new", str(run), "--out", str(out)])
    assert "200 old, 240 new, 200 in both" in capsys.readouterr().out
    assert [one["changed"] for one in read_json(out)["rows"]] == [0, 0, 0]
    main(["churn", "--old", str(run), "--old-version", "0", "--new", str(run)])
    assert "200 old, 240 new" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--items", "new.parquet"], "--items FILE and --append go together"),
        ([], "give either --items FILE --append or --remove FILE"),
        (["--items", "no.parquet", "--append"], "no.parquet: no such file"),
        (["--items", "new.xlsx", "--append"], "the name must end in .parquet, .csv, .jsonl"),
        (["--items", "empty.csv", "--append"], "row 2, column 'item_id', value None: an item needs an id"),
        (["--items", "new.parquet", "--append", "--free"], "--free goes with --remove only"),
        (["--items", "new.parquet", "--append", "--vectors", "v.parquet"], "goes with precomputed, and only"),
        (["--items", "new.parquet", "--append", "--drift.min_items", "0"], "drift.min_items is 0"),
        (["--remove", "none.txt"], "none.txt: no such file"),
        (["--remove", "blank.txt"], "no id in it"),
        (["--remove", "bad.txt"], "'no-such-item' has no SID"),
    ],
)
def test_mistakes_end_with_status_2_and_write_nothing(
    place: Path,
    run: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    part(place, tmp_path, 0, 3)
    (tmp_path / "new.xlsx").write_text("x")
    (tmp_path / "empty.csv").write_text("item_id,title,category\nx,y,A > B\n,y,A > B\n")
    (tmp_path / "blank.txt").write_text("\n\n")
    (tmp_path / "bad.txt").write_text("no-such-item\n")
    before = {path: file_hash(path) for path in run.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as stopped:
        main(["tokenize", "--run", "run", *arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert {path: file_hash(path) for path in run.rglob("*") if path.is_file()} == before


def test_other_vectors_than_the_runs_are_refused(
    place: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pressmark.catalog import later_vectors

    real = later_vectors.embed

    def other(*arguments: Any) -> Any:
        vectors, path = real(*arguments)
        return vectors[:, ::-1].copy(), path

    monkeypatch.setattr(later_vectors, "embed", other)
    with pytest.raises(SystemExit):
        append(run, place / "later.parquet")
    assert read_register(run / "tokenizer" / "sids.parquet").table.version == 0


def test_what_sells_now_is_counted_anew_for_those_who_serve(
    place: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = read_json(run / "hybrid" / "config.json")
    weights = {**made["sold"], "trend": 0.5, "age": -0.5}
    write_json(run / "hybrid" / "config.json", {**made, "sold": weights, "route": [-9.0, 0.3, -0.1]})
    before = pressmark.load(run)
    stars = before.catalog.item_id[[7, 11]].tolist()
    append(run, part(place, tmp_path, 0, 10))
    untold = pressmark.load(run)
    appended = untold.catalog.item_id[200:].tolist()
    old = pl.read_parquet(place / "own" / "interactions.parquet")
    newest = old["timestamp"].max()
    rush = old.head(400).with_columns(
        pl.Series("item_id", [*stars, *stars, *stars, appended[4]] * 57 + [stars[0]]),
        pl.lit(newest + 60, old["timestamp"].dtype).alias("timestamp"),
        pl.Series("user_id", [f"new{one}" for one in range(400)]),
    )
    (tmp_path / "now").mkdir()
    pl.concat([old, rush]).write_parquet(tmp_path / "now" / "interactions.parquet")
    capsys.readouterr()
    main(["trend", "--run", str(run), "--interactions", str(tmp_path / "now")])
    said = capsys.readouterr().out
    assert f"of {len(old) + 400:,} purchases up to " in said
    assert [line.split()[0] for line in said.splitlines()[1:4]] == [*stars, appended[4]]
    main(["trend", "--run", str(run), "--interactions", str(tmp_path / "now")])
    # A folder of answers is not gone on with under other sales.
    shards, out = tmp_path / "shards", ["--out", str(tmp_path / "answers")]
    shards.mkdir()
    (shards / "a.jsonl").write_text(json.dumps({"user_id": "u", "history": appended[:1]}) + "\n")
    main(["recommend", "--run", str(run), "--histories", str(shards), *out])
    main(["trend", "--run", str(run), "--interactions", str(place / "own")])
    with pytest.raises(SystemExit):
        main(["recommend", "--run", str(run), "--histories", str(shards), *out])
    assert "results of other settings" in capsys.readouterr().err
    main(["trend", "--run", str(run), "--interactions", str(tmp_path / "now")])
    now, evaluated = pressmark.load(run), LOADERS["hybrid"](run)
    shift = now.recommender.experts.trends[:, :200] - before.recommender.experts.trends
    assert set(np.argsort(-shift[0])[:2]) == {7, 11}
    np.testing.assert_array_equal(evaluated.experts.trends, before.recommender.experts.trends)
    # A product that sells is one of those that sell, trained on or not.
    places = now.catalog.index_of(appended)
    assert now.recommender.experts.unbought[places].tolist() == [one != 4 for one in range(10)]
    history = before.catalog.item_id[:1].tolist()
    then, guessed, later = (dict(one.recommend([history], k=250)[0]) for one in (before, untold, now))
    assert later[appended[4]] > guessed[appended[4]]
    sold = before.catalog.item_id[np.flatnonzero(~before.recommender.experts.unbought)]
    one, other = [item for item in sold if item not in {*stars, *history}][:2]
    moved = (later[one] - later[other]) - (then[one] - then[other])
    places = before.catalog.index_of([one, other])
    expected = weights["trend"] * shift[0, places] + weights["age"] * shift[1, places]
    assert moved == pytest.approx(expected[0] - expected[1], abs=1e-3)


def test_a_trend_that_cannot_be_counted_or_read_is_refused(place: Path, run: Path, tmp_path: Path) -> None:
    old = pl.read_parquet(place / "own" / "interactions.parquet")
    (tmp_path / "timeless").mkdir()
    old.drop("timestamp").write_parquet(tmp_path / "timeless" / "interactions.parquet")
    asked = ["--run", str(run), "--interactions", str(tmp_path / "timeless")]
    with pytest.raises(ValueError, match="not one interaction has a timestamp"):
        living.trend(asked)
    assert not (run / PLACE).exists()
    living.trend([*asked[:3], str(place / "own")])
    kept = pq.read_table(run / PLACE)
    trend = kept.column("trend").to_numpy().copy()
    trend[3] = np.nan
    minus, none = pa.array([-1] * len(kept)), pa.nulls(len(kept), pa.int64())
    for damaged, message in (
        (kept.slice(1), "not of this run's items"),
        (kept.drop(["age"]), "its columns are not item_id, purchases, trend, age"),
        (kept.set_column(2, "trend", pa.array(["x"] * len(kept))), "its columns are not"),
        (kept.set_column(2, "trend", pa.array(trend)), "holds null, NaN"),
        (kept.set_column(1, "purchases", minus), "a number of purchases below 0"),
        (kept.set_column(1, "purchases", none), "holds null"),
    ):
        pq.write_table(damaged, run / PLACE)
        with pytest.raises(ValueError, match=rf"trend\.parquet: .*{message}.*count again"):
            pressmark.load(run)
    (run / PLACE).write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"trend\.parquet.*count again"):
        pressmark.load(run)
    (tmp_path / "newest").mkdir()
    old.tail(50).write_parquet(tmp_path / "newest" / "interactions.parquet")
    with pytest.raises(ValueError, match=r"purchases of products of .* the old ones too"):
        living.trend([*asked[:3], str(tmp_path / "newest")])
    with pytest.raises(ValueError, match=r"--interactions .*nowhere: no such folder"):
        living.trend([*asked[:3], str(tmp_path / "nowhere")])
    with holding(run / "hybrid", "pressmark trend") as take:
        take(False)
        with pytest.raises(ValueError, match="another `pressmark trend` is at work"):
            living.trend(asked)
    shutil.rmtree(run / "hybrid")
    with pytest.raises(ValueError, match="holds no hybrid, which alone reads a trend"):
        living.trend(asked)
