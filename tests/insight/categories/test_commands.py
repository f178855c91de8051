"""`pressmark audit` and `pressmark categorize` on a tiny run, as a user calls them."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from tests.integration.tiny import REPOSITORY

from pressmark.catalog import grocery
from pressmark.catalog.grocery import write_grocery
from pressmark.catalog.items import Catalog, read_catalog, write_catalog
from pressmark.cli import main
from pressmark.files import read_parquet
from pressmark.insight.categories import assemble, audit_command, page
from pressmark.insight.categories.predict_command import read_leaves
from pressmark.insight.categories.suspicion import MOST_UNTOLD, judge
from pressmark.interactions.split_files import read_split, write_split
from pressmark.sids.table import read_sids


@pytest.fixture
def run(tiny_run: Path) -> Path:
    return tiny_run


def changed(run: Path, place: Path, **columns: object) -> Path:
    """A copy of the run with other columns in its catalog."""
    copy = Path(shutil.copytree(run, place / "run"))
    catalog = read_catalog(copy / "data" / "items.parquet")
    split = read_split(copy / "data", catalog)
    catalog = replace(catalog, **columns)  # type: ignore[arg-type]
    write_catalog(copy / "data" / "items.parquet", catalog)
    write_split(copy / "data", split, catalog)
    return copy


def catalog_of(run: Path) -> Catalog:
    return read_catalog(run / "data" / "items.parquet")


def fails(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    with pytest.raises(SystemExit) as ended:
        main(list(map(str, arguments)))
    assert ended.value.code == 2
    return capsys.readouterr().err


def page_data(path: Path) -> dict:
    found = re.search(
        r'<script type="application/json" id="data">(.*?)</script>', path.read_text("utf-8"), re.DOTALL
    )
    assert found
    return json.loads(found[1])


def test_audit_as_a_user_calls_it(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "audit.parquet"
    main(["audit", "--run", str(run), "--out", str(out), "--confidence", "0"])
    shown = capsys.readouterr().out
    assert "without the category" in shown
    assert "products without a category are not audited" in shown
    rows = read_parquet(out).to_pylist()
    catalog = catalog_of(run)
    known = {
        item: [" > ".join(path) for path in paths]
        for item, paths in zip(catalog.item_id, catalog.category, strict=True)
    }
    assert len(rows) == sum(map(bool, known.values()))
    for row in rows:
        assert row["current"] == known[row["item_id"]][0]
        assert not set(known[row["item_id"]]) & set(row["suggested"])
        assert row["item_id"] not in row["neighbours"]
        assert sum(row["suggested_confidence"]) <= row["confidence"] + 1e-9
        assert 0 < row["severity"] <= 1
        assert row["plain_prefix_size"] == 0 or sum(row["plain_prefix_shares"]) <= 1 + 1e-9

    # The page holds the same, in one file that asks nobody for anything.
    html = out.with_suffix(".html").read_text("utf-8")
    assert not re.search(r"(src|href)=\"?(https?:)?//", html)
    data = page_data(out.with_suffix(".html"))
    assert [one["key"][1] for one in data["tabs"][0]["rows"]] == [one["item_id"] for one in rows]
    twins = read_parquet(out.with_suffix(".duplicates.parquet")).to_pylist()
    assert [one["key"][1:] for one in data["tabs"][1]["rows"]] == [
        [one["item_id"], one["other_id"]] for one in twins
    ]
    assert all(one["cosine"] >= 0.95 for one in twins)

    # Decided findings are not shown again, and stand in the next export.
    decided = [[*data["tabs"][0]["rows"][at]["key"], word] for at, word in ((0, "accepted"), (2, "rejected"))]
    decided += [[*data["tabs"][1]["rows"][0]["key"], "rejected"]] if twins else []
    review = tmp_path / "reviewed.csv"
    with review.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [["kind", "subject", "object", "decision"], *decided, ["category", "gone", "x", "accepted"]]
        )
    main(["audit", "--run", str(run), "--out", str(out), "--confidence", "0", "--review", str(review)])
    assert "1 product ids are not in the catalog, such as 'gone'" in capsys.readouterr().out
    left = [row["item_id"] for row in read_parquet(out).to_pylist()]
    assert left == [row["item_id"] for at, row in enumerate(rows) if at not in (0, 2)]
    assert page_data(out.with_suffix(".html"))["decided"] == sorted(
        [*decided, ["category", "gone", "x", "accepted"]]
    )


def test_the_page_survives_what_titles_hold(run: Path, tmp_path: Path) -> None:
    title = catalog_of(run).title.copy()
    title[:] = [f"{one} </script><b>" for one in title]
    copy, out = changed(run, tmp_path, title=title), tmp_path / "a.parquet"
    main(["audit", "--run", str(copy), "--out", str(out), "--confidence", "0"])
    assert "</script><b>" in page_data(out.with_suffix(".html"))["tabs"][0]["rows"][0]["title"]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is embedded: what cannot be used is found before."""

    def never(*_: object) -> None:
        raise AssertionError("embedded before the options and the catalog were looked at")

    monkeypatch.setattr(assemble, "content_of", never)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind,subject,object\ncategory,a,b\n", "its first line does not name 'decision'"),
        ("kind,subject,object,decision\ncategory,a,b,maybe\n", "decision is 'maybe'"),
        ("kind,subject,object,decision\nother,a,b,accepted\n", "kind is 'other'"),
        ("kind,subject,object,decision\ncategory,a,b,accepted\n", "holds none of its 1 products, such as 'a'"),
    ],
)
def test_reviews_that_cannot_be_used(
    text: str, said: str, run: Path, tmp_path: Path, at_once: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.csv").write_text(text)
    shown = fails(
        capsys, "audit", "--run", run, "--out", tmp_path / "a.parquet", "--review", tmp_path / "r.csv"
    )
    assert said in shown
    assert not (tmp_path / "a.parquet").exists()


def test_bad_input(run: Path, tmp_path: Path, at_once: None, capsys: pytest.CaptureFixture[str]) -> None:
    num, out = len(catalog_of(run)), tmp_path / "a.parquet"
    assert "config.yaml is missing" in fails(capsys, "audit", "--run", tmp_path, "--out", out)
    assert "must lie in 0..1" in fails(capsys, "audit", "--run", run, "--out", out, "--confidence", "2")
    assert "--cosine is 2.0" in fails(capsys, "audit", "--run", run, "--out", out, "--cosine", "2")
    assert "--seed is -1" in fails(capsys, "categorize", "--run", run, "--out", out, "--seed", "-1")
    assert "ends in .parquet" in fails(capsys, "audit", "--run", run, "--out", tmp_path / "a.csv")
    bare = changed(run, tmp_path / "bare", category=((),) * num)
    for command in ("audit", "categorize"):
        assert "no product of the run has a category" in fails(capsys, command, "--run", bare, "--out", out)
    one = changed(run, tmp_path / "one", category=((("Food", "Milk"),),) * num)
    for command in ("audit", "categorize"):
        assert "stand in one category, 'Food > Milk': there is no other to tell it from" in fails(
            capsys, command, "--run", one, "--out", out
        )
    (tmp_path / "file").write_text("")
    for command in ("audit", "categorize"):
        shown = fails(capsys, command, "--run", run, "--out", tmp_path / "file" / "a.parquet")
        assert "its folder cannot be made" in shown


def test_every_product_has_a_category(
    run: Path, tmp_path: Path, at_once: None, capsys: pytest.CaptureFixture[str]
) -> None:
    category = tuple(one or (("Pets",),) for one in catalog_of(run).category)
    copy = changed(run, tmp_path, category=category)
    main(["categorize", "--run", str(copy), "--out", str(tmp_path / "c.parquet")])
    assert "every product has a category" in capsys.readouterr().out
    assert read_parquet(tmp_path / "c.parquet").column_names[0] == "item_id"


def test_nothing_to_judge_by(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    num, out = len(catalog_of(run)), tmp_path / "a.parquet"
    empty = np.full(num, "", object)
    mute = changed(run, tmp_path / "mute", title=empty, brand=empty, text={"description": empty})
    assert "no product of the run has any text" in fails(capsys, "audit", "--run", mute, "--out", out)
    assert "no such file" in fails(
        capsys, "categorize", "--run", run, "--out", out, "--leaves", tmp_path / "no"
    )


def test_half_of_the_products_without_text_are_no_mistakes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """300 products on some 170 shelves, 2 % of them wrong; half say nothing of themselves."""
    write_grocery(tmp_path / "store", grocery.Config(num_products=4000, num_shoppers=1000, months=3))
    data, run, out = tmp_path / "data", tmp_path / "run", tmp_path / "a.parquet"
    data.mkdir()
    blank = pl.int_range(pl.len()) % 2 == 1
    items = pl.read_parquet(tmp_path / "store" / "items.parquet").head(300)
    items = items.select(
        "item_id", "category", *(pl.when(~blank).then(pl.col(one)) for one in ("title", "brand"))
    )
    items.write_parquet(data / "items.parquet")
    log = pl.read_parquet(tmp_path / "store" / "interactions.parquet")
    log.filter(pl.col("item_id").is_in(items["item_id"].to_list())).write_parquet(data / "interactions.parquet")
    own = ["--config", str(REPOSITORY / "configs" / "own.yaml"), "--vectors.model", "tfidf"]
    main(
        ["prepare", *own, "--data.path", str(data), "--run_dir", str(run), "--split.protocol", "leave_one_out"]
    )
    main(["audit", "--run", str(run), "--out", str(out)])
    shown = capsys.readouterr().out
    share = re.search(r"About ([\d.]+)% of these look wrong", shown)
    assert share
    assert float(share[1]) < 20
    assert "comes out too high" in shown
    assert set(items["item_id"].to_list()[1::2]).isdisjoint(read_parquet(out)["item_id"].to_pylist())


def test_an_implausible_share_is_called_so(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for share, said in ((0.23, True), (0.19, False)):
        sure = lambda *arguments, share=share: replace(  # noqa: E731
            (found := judge(*arguments)), confidence=np.full(len(found.rows), share)
        )
        monkeypatch.setattr(audit_command, "judge", sure)
        main(["audit", "--run", str(run), "--out", str(tmp_path / "a.parquet")])
        assert ("23% wrong is not plausible" in capsys.readouterr().out) is said


def test_what_a_lower_threshold_would_show(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.parquet"
    main(["audit", "--run", str(run), "--out", str(out), "--confidence", "0.99"])
    said = re.search(r"([\d,]+) more lie between 0.2 and 0.99: --confidence 0.2", capsys.readouterr().out)
    main(["audit", "--run", str(run), "--out", str(out), "--confidence", "0.2"])
    assert said
    assert int(said[1]) == sum(0.2 < one < 0.99 for one in read_parquet(out)["confidence"].to_pylist())
    assert "more lie between" not in capsys.readouterr().out


def test_the_evidence_has_seen_no_label(run: Path, tmp_path: Path) -> None:
    """All labels swapped about: the codes that are shown as evidence stay, and so do the SIDs beside them."""
    category = catalog_of(run).category
    swapped = changed(run, tmp_path / "swapped", category=tuple(category[::-1]))
    codes = []
    for one in (run, swapped):
        out = tmp_path / "a.parquet"
        main(["audit", "--run", str(one), "--out", str(out), "--confidence", "0"])
        rows = {row["item_id"]: row for row in read_parquet(out).to_pylist()}
        codes.append(rows)
        sids = read_sids(one / "tokenizer" / "sids.parquet", catalog_of(one).item_id)
        known = {
            item: "_".join(map(str, sid)) for item, sid in zip(catalog_of(one).item_id, sids.sids, strict=True)
        }
        assert all(row["sid"] == known[item] for item, row in rows.items() if row["neighbours"])
    for item in codes[0].keys() & codes[1].keys():
        first, second = sorted((one[item]["plain_prefix"] for one in codes), key=len)
        assert second.startswith(first)
    page = page_data(out.with_suffix(".html"))["tabs"][0]["rows"]
    titles = [part["title"] for row in page for part in row["evidence"]]
    assert any(one.startswith("Codes without labels: ") for one in titles)
    assert "Its SID, trained on labels, so no evidence" in titles


def test_products_without_text_are_left_alone(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = catalog_of(run)
    mute = np.flatnonzero([bool(one) for one in catalog.category])[::8]
    columns = {"title": catalog.title, "brand": catalog.brand, **catalog.text}
    blank = {name: np.where(np.isin(np.arange(len(catalog)), mute), "", one) for name, one in columns.items()}
    category = tuple(() if at in mute[::2] else one for at, one in enumerate(catalog.category))
    title, brand = blank.pop("title"), blank.pop("brand")
    copy = changed(run, tmp_path, title=title, brand=brand, text=blank, category=category)
    out, ids = tmp_path / "a.parquet", set(catalog.item_id[mute])
    main(["audit", "--run", str(copy), "--out", str(out), "--confidence", "0", "--cosine", "0"])
    assert f"{len(mute)} products without any text: only what is bought together" in capsys.readouterr().out
    rows = [row for row in read_parquet(out).to_pylist() if row["item_id"] in ids]
    assert len(rows) == len(mute[1::2])
    assert all(row["confidence"] <= MOST_UNTOLD and not row["neighbours"] for row in rows)
    assert all(not row["plain_prefix"] for row in rows)
    page = page_data(out.with_suffix(".html"))["tabs"][0]["rows"]
    assert all(not row["evidence"] for row in page if row["key"][1] in ids)
    twins = read_parquet(out.with_suffix(".duplicates.parquet")).to_pylist()
    assert ids.isdisjoint({row[name] for row in twins for name in ("item_id", "other_id")})

    main(["categorize", "--run", str(copy), "--out", str(out)])
    rows = [row for row in read_parquet(out).to_pylist() if row["item_id"] in ids]
    assert len(rows) == len(mute[::2])
    assert all(not row["sure"] for row in rows)


def test_a_page_says_that_it_is_cut(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MOST_ROWS", 3)
    out = tmp_path / "a.parquet"
    main(["audit", "--run", str(run), "--out", str(out), "--confidence", "0"])
    first = page_data(out.with_suffix(".html"))["tabs"][0]
    assert (len(first["rows"]), first["num"]) == (3, read_parquet(out).num_rows)


def test_a_pair_is_one_finding_in_whatever_order_its_products_stand(run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(run, tmp_path / "run"))
    items = pl.read_parquet(run / "data" / "items.parquet").head(2)
    old = items["item_id"].to_list()
    items.with_columns(pl.format("A-{}", "item_id").alias("item_id")).write_parquet(tmp_path / "new.parquet")
    main(["tokenize", "--run", str(run), "--items", str(tmp_path / "new.parquet"), "--append"])
    out, review = tmp_path / "a.parquet", tmp_path / "r.csv"

    def pairs(*more: str) -> set[tuple[str, str]]:
        main(["audit", "--run", str(run), "--out", str(out), "--cosine", ".99", *more])
        rows = page_data(out.with_suffix(".html"))["tabs"][1]["rows"]
        for row in rows:  # titles and ids of a row go together
            assert row["item_id"].split()[0] in row["key"]
        return {tuple(row["key"][1:]) for row in rows}

    shown = pairs()
    assert {(f"A-{one}", one) for one in old} <= shown  # appended, and so behind, but first by name
    for first, second in (("A-{}", "{}"), ("{}", "A-{}")):
        rows = [f"duplicate,{first.format(one)},{second.format(one)},rejected\n" for one in old]
        review.write_text("kind,subject,object,decision\n" + "".join(rows))
        assert pairs("--review", str(review)) == shown - {(f"A-{one}", one) for one in old}


def with_vectors(run: Path, **settings: object) -> None:
    """Says in the run's config that its vectors were made otherwise."""
    path = run / "config.yaml"
    written = yaml.safe_load(path.read_text())
    written["experiment"]["vectors"].update(settings)
    path.write_text(yaml.safe_dump(written))


def test_vectors_that_may_have_seen_the_category(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, out = changed(run, tmp_path), tmp_path / "a.parquet"
    with_vectors(copy, model="precomputed", path="somewhere.parquet")
    main(["audit", "--run", str(copy), "--out", str(out)])
    assert (
        "tfidf over title, brand, description, without the category (the run's vectors were brought along"
        in (capsys.readouterr().out)
    )
    main(["audit", "--run", str(copy), "--out", str(out), "--trust-vectors"])
    assert "as they are" in capsys.readouterr().out
    with_vectors(copy, model="tfidf", path="", columns=["category"])
    assert "is category alone" in fails(capsys, "audit", "--run", copy, "--out", out)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Pets > Cats\nFilm>Drama>X\n", "line 2, 'Film>Drama>X': 'Film>Drama>X' holds '>' without a space"),
        ("Pets > Cats> Food\n", "line 1, 'Pets > Cats> Food': 'Cats> Food' holds '>'"),
        ('\n["Pets" "Cats"]\n', 'line 2, \'["Pets" "Cats"]\': a list written as text that cannot be read'),
        ("\n", "no path in it"),
    ],
)
def test_leaves_that_cannot_be_read(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "leaves.txt").write_text(text, "utf-8")
    with pytest.raises(ValueError, match=re.escape(said)):
        read_leaves(tmp_path / "leaves.txt")


def test_a_name_may_hold_the_sign_in_a_list(tmp_path: Path) -> None:
    (tmp_path / "leaves.txt").write_text('["Pets", "Low>Fat"]\n', "utf-8")
    assert read_leaves(tmp_path / "leaves.txt") == [("Pets", "Low>Fat")]


def test_categorize(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    catalog, out = catalog_of(run), tmp_path / "c.parquet"
    hidden = set(np.flatnonzero([bool(one) for one in catalog.category])[::8].tolist())
    category = tuple(() if at in hidden else one for at, one in enumerate(catalog.category))
    copy = changed(run, tmp_path, category=category)
    known = " > ".join(next(one for one in category if one)[0])
    (tmp_path / "leaves.txt").write_text(f"Pets > Rabbits > Hay\n{known}\n")
    main(["categorize", "--run", str(copy), "--out", str(out), "--leaves", str(tmp_path / "leaves.txt")])
    shown = capsys.readouterr().out
    assert "products without a category:" in shown
    assert f"mind: 1 paths of --leaves hold products already, first {known!r}" in shown
    few = "mind: the 1 empty categories are hardly ever suggested: too few others hold products" in shown
    assert few == (len({paths[0] for paths in category if paths}) < 15)
    rows = {row["item_id"]: row for row in read_parquet(out).to_pylist()}
    assert set(rows) == {catalog.item_id[at] for at, one in enumerate(category) if not one}
    right = 0
    for at in hidden:
        row = rows[catalog.item_id[at]]
        assert row["guess"].startswith(row["sure"])
        assert len(row["confidence"]) == len(row["guess"].split(" > "))
        assert row["confidence"] == sorted(row["confidence"], reverse=True)
        right += row["guess"].split(" > ")[0] in {path[0] for path in catalog.category[at]}
    assert right / len(hidden) > 0.5


@pytest.mark.parametrize("model", ["tfidf", "minilm"])
def test_appended_products_are_looked_at_and_removed_ones_are_not(
    model: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(run, tmp_path / "run"))
    items = pl.read_parquet(run / "data" / "items.parquet")
    bare, filed = (
        items.filter(pl.col("category").list.len() > 0).head(12),
        items.filter(pl.col("category").list.len() > 0).tail(3),
    )
    new = pl.concat([bare.with_columns(category=pl.lit([], items.schema["category"])), filed])
    new = new.with_columns(pl.format("new-{}", "item_id").alias("item_id"))
    new.write_parquet(tmp_path / "new.parquet")
    main(["tokenize", "--run", str(run), "--items", str(tmp_path / "new.parquet"), "--append"])
    unfiled = items.filter(pl.col("category").list.len() == 0)["item_id"].to_list()
    gone = [unfiled[0], bare["item_id"][3], bare["item_id"][4]]
    (tmp_path / "gone.txt").write_text("\n".join(gone), "utf-8")
    main(["tokenize", "--run", str(run), "--remove", str(tmp_path / "gone.txt")])
    with_vectors(run, model=model)

    out = tmp_path / "c.parquet"
    main(["categorize", "--run", str(run), "--out", str(out)])
    guess = {row["item_id"]: row["guess"] for row in read_parquet(out).to_pylist()}
    assert set(guess) == {*unfiled[1:], *(f"new-{one}" for one in bare["item_id"])}
    here = {
        f"new-{row['item_id']}": " > ".join(row["category"][0])
        for row in bare.iter_rows(named=True)
        if row["item_id"] not in gone
    }
    assert np.mean([guess[one] == path for one, path in here.items()]) > 0.6

    main(["audit", "--run", str(run), "--out", str(out), "--confidence", "0", "--cosine", "0.9"])
    shown = capsys.readouterr().out
    assert "of 252 products have a category" in shown
    audited = {row["item_id"] for row in read_parquet(out).to_pylist()}
    assert audited == set(items["item_id"]) - set(unfiled) - set(gone) | {
        f"new-{one}" for one in filed["item_id"]
    }
    twins = {
        (row["item_id"], row["other_id"])
        for row in read_parquet(out.with_suffix(".duplicates.parquet")).to_pylist()
    }
    assert {(one, f"new-{one}") for one in filed["item_id"]} <= twins


def test_the_same_bytes_again(run: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        main(["audit", "--run", str(run), "--out", str(tmp_path / name / "x.parquet"), "--confidence", "0.1"])
    for name in ("x.parquet", "x.html", "x.duplicates.parquet", "x.categories.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
