from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pressmark.catalog.items import (
    RULES,
    Catalog,
    Columns,
    join_catalogs,
    load_items,
    load_items_file,
    read_catalog,
    write_catalog,
)

COLUMNS = Columns()


def csv(folder: Path, text: str | bytes) -> Path:
    data = text if isinstance(text, bytes) else text.encode()
    (folder / "items.csv").write_bytes(data)
    return folder


def jsonl(folder: Path, *records: object) -> Path:
    (folder / "items.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    return folder


def parquet(folder: Path, **columns: object) -> Path:
    pl.DataFrame(columns).write_parquet(folder / "items.parquet")
    return folder


def test_csv_rows_become_items_sorted_by_id(tmp_path: Path) -> None:
    text = (
        'item_id,title,category,brand,description\nb,"Milk, whole",Dairy > Milk,Acme,fresh\na,Salt,Pantry,,\n'
    )
    catalog, counts = load_items(csv(tmp_path, text), COLUMNS)
    assert catalog.item_id.tolist() == ["a", "b"]
    assert catalog.title.tolist() == ["Salt", "Milk, whole"]
    assert catalog.brand.tolist() == ["", "Acme"]
    assert catalog.category == ((("Pantry",),), (("Dairy", "Milk"),))
    assert catalog.text["description"].tolist() == ["", "fresh"]
    assert counts["items"] == 2
    assert counts["items_without_brand"] == 1
    assert list(counts) == list(RULES)


def test_null_empty_and_blank_titles_are_kept_and_counted(tmp_path: Path) -> None:
    folder = parquet(tmp_path, item_id=list("abcd"), title=["x", None, "", "  "], category=[["A"]] * 4)
    catalog, counts = load_items(folder, COLUMNS)
    assert catalog.title.tolist() == ["x", "", "", ""]
    assert counts["items_without_title"] == 3


def test_missing_categories_are_kept_and_counted(tmp_path: Path) -> None:
    folder = parquet(tmp_path, item_id=list("abcd"), title=["x"] * 4, category=[["A"], None, [], ["", None]])
    catalog, counts = load_items(folder, COLUMNS)
    assert catalog.category == ((("A",),), (), (), ())
    assert counts["items_without_category"] == 3
    assert counts["items_empty_segment"] == 2


def test_ragged_categories_are_kept_and_those_off_the_commonest_depth_counted(tmp_path: Path) -> None:
    text = "item_id,title,category\n1,x,A > B\n2,x,A > C\n3,x,A\n4,x,A > B > C > D\n"
    catalog, counts = load_items(csv(tmp_path, text), COLUMNS)
    assert [len(paths[0]) for paths in catalog.category] == [2, 2, 1, 4]
    assert counts["items_ragged_category"] == 2


@pytest.mark.parametrize(
    ("value", "repeated"),
    [
        ("A > B | C", 0),
        ([["A", "B"], ["C"]], 0),
        ([["A", "B"], ["C"], ["A", "B"]], 1),
        ("A > B | C | A > B", 1),
    ],
)
def test_several_paths_are_all_kept(tmp_path: Path, value: object, repeated: int) -> None:
    folder = jsonl(tmp_path, {"item_id": "1", "title": "x", "category": value})
    catalog, counts = load_items(folder, COLUMNS)
    assert catalog.category == ((("A", "B"), ("C",)),)
    assert counts["items_several_paths"] == 1
    assert counts["items_repeated_path"] == repeated


def test_parquet_lists_of_lists_are_paths(tmp_path: Path) -> None:
    folder = parquet(tmp_path, item_id=["1", "2"], title=["x", "y"], category=[[["A", "B"], ["C"]], [["D"]]])
    catalog, _ = load_items(folder, COLUMNS)
    assert catalog.category == ((("A", "B"), ("C",)), (("D",),))


def test_empty_segments_close_up(tmp_path: Path) -> None:
    text = "item_id,title,category\n1,x,A > > B\n2,x, > A\n3,x,A > \n4,x,A->B > C\n"
    catalog, counts = load_items(csv(tmp_path, text), COLUMNS)
    assert catalog.category == ((("A", "B"),), (("A",),), (("A",),), (("A->B", "C"),))
    assert counts["items_empty_segment"] == 3


def test_the_first_row_of_a_duplicate_id_is_kept(tmp_path: Path) -> None:
    text = "item_id,title,category\nb,first,A\na,other,A\nb,second,B\nb,third,C\n"
    catalog, counts = load_items(csv(tmp_path, text), COLUMNS)
    assert catalog.title.tolist() == ["other", "first"]
    assert counts["items_duplicate_id"] == 2


def test_text_that_is_not_utf8_is_repaired_and_counted(tmp_path: Path) -> None:
    text = "item_id,title,category\n1,Caf\xe9,Getr\xe4nke > Caf\xe9\n2,Tea,A\n".encode("latin-1")
    catalog, counts = load_items(csv(tmp_path, text), COLUMNS)
    assert catalog.title.tolist() == ["Caf\ufffd", "Tea"]
    assert catalog.category[0] == (("Getr\ufffdnke", "Caf\ufffd"),)
    assert counts["items_not_utf8"] == 3


def test_an_id_that_is_not_utf8_stops_the_run(tmp_path: Path) -> None:
    text = "item_id,title,category\n1,x,A\ncaf\xe9,x,A\n".encode("latin-1")
    with pytest.raises(ValueError, match=r"items\.csv: row 2, column 'item_id', value 'caf.': .*UTF-8.*Save"):
        load_items(csv(tmp_path, text), COLUMNS)


def test_an_item_without_id_stops_the_run(tmp_path: Path) -> None:
    folder = jsonl(tmp_path, {"item_id": "1", "title": "x", "category": "A"}, {"title": "y", "category": "A"})
    with pytest.raises(
        ValueError, match=r"items\.jsonl: row 2, column 'item_id', value None: an item needs an id"
    ):
        load_items(folder, COLUMNS)


@pytest.mark.parametrize(
    ("written", "paths"),
    [
        ('"[""Drinks"", ""Tea""]"', (("Drinks", "Tea"),)),
        ("\"['Drinks', 'Tea']\"", (("Drinks", "Tea"),)),
        ("\"[['Drinks', 'Tea'], ['Gifts']]\"", (("Drinks", "Tea"), ("Gifts",))),
        ("Drinks>Tea", (("Drinks>Tea",),)),
    ],
)
def test_categories_as_a_csv_may_hold_them(tmp_path: Path, written: str, paths: tuple) -> None:
    catalog, counts = load_items(csv(tmp_path, f"item_id,title,category\n1,x,{written}\n"), COLUMNS)
    assert catalog.category == (paths,)
    assert counts["items_joined_names"] == sum(">" in name for path in paths for name in path)


def test_a_list_written_without_commas_stops_the_run(tmp_path: Path) -> None:
    folder = csv(tmp_path, "item_id,title,category\n1,x,\"['Drinks' 'Tea']\"\n")
    with pytest.raises(ValueError, match=r"row 1, column 'category'.*a list written as text"):
        load_items(folder, COLUMNS)


def test_half_an_emoji_becomes_one_replacement_character(tmp_path: Path) -> None:
    line = '{"item_id": "1", "title": "caf\\ud83d", "category": ["A\\udc00"]}'
    (tmp_path / "items.jsonl").write_text(line)
    catalog, counts = load_items(tmp_path, COLUMNS)
    assert (catalog.title[0], catalog.category[0]) == ("caf\ufffd", (("A\ufffd",),))
    assert counts["items_not_utf8"] == 2


@pytest.mark.parametrize("value", [{"a": 1}, [[["A"]]], [["A"], "B"]])
def test_a_category_of_another_form_stops_the_run(tmp_path: Path, value: object) -> None:
    good = {"item_id": "1", "title": "x", "category": "A"}
    folder = jsonl(tmp_path, good, {**good, "item_id": "2", "category": value})
    with pytest.raises(ValueError, match=r"items\.jsonl: row 2, column 'category', value .*Write Dairy > Milk"):
        load_items(folder, COLUMNS)


def test_the_row_named_is_the_files_row_not_the_sorted_one(tmp_path: Path) -> None:
    good = {"title": "x", "category": "A"}
    folder = jsonl(
        tmp_path,
        {"item_id": "z", **good},
        {"item_id": "z", **good},
        {"item_id": "a", "title": "x", "category": {}},
    )
    with pytest.raises(ValueError, match="row 3"):
        load_items(folder, COLUMNS)


def test_columns_are_mapped(tmp_path: Path) -> None:
    columns = Columns(
        item_id="sku", title="name", category="path", brand="maker", text=("features", "description")
    )
    folder = parquet(
        tmp_path, sku=[10, 9], name=["x", "y"], path=["A", "B"], maker=[None, "m"], features=[["a", "b"], None]
    )
    catalog, counts = load_items(folder, columns)
    assert catalog.item_id.tolist() == ["10", "9"]  # as strings: "10" < "9"
    assert catalog.brand.tolist() == ["", "m"]
    assert catalog.text["features"].tolist() == ["a b", ""]
    assert catalog.text["description"].tolist() == ["", ""]
    assert counts["items_absent_columns"] == 1


def test_a_text_column_that_the_file_lacks_stops_the_run(tmp_path: Path) -> None:
    folder = csv(tmp_path, "item_id,title,category,summary\n1,x,A,s\n")
    with pytest.raises(ValueError, match=r"items\.csv: no column 'sumary', .*Did you mean 'summary'"):
        load_items(folder, Columns(text=("description", "sumary")))
    # A delivery of new products may lack it.
    catalog, _ = load_items_file(folder / "items.csv", Columns(text=("sumary",)))
    assert catalog.text["sumary"].tolist() == [""]


def test_a_brand_that_was_mapped_must_be_there(tmp_path: Path) -> None:
    folder = csv(tmp_path, "item_id,title,category,maker\n1,x,A,m\n")
    assert load_items(folder, Columns())[0].brand.tolist() == [""]
    with pytest.raises(ValueError, match=r"'makers', which data\.columns\.brand names.*Did you mean 'maker'"):
        load_items(folder, Columns(brand="makers"))


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_columns_that_are_not_read_are_named(
    tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"item_id": "1", "title": "x", "category": "A", "summary": "s", "studio": "t"}
    frame = pl.DataFrame([row])
    write = {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet}[ending]
    write(tmp_path / f"items.{ending}")
    load_items(tmp_path, COLUMNS)
    assert capsys.readouterr().out.startswith("columns not read: summary, studio; name them in ")
    load_items(tmp_path, Columns(text=("summary", "studio")))
    assert capsys.readouterr().out == ""


def test_a_text_column_cannot_take_our_names() -> None:
    with pytest.raises(ValueError, match=r"data\.columns\.text names 'title'"):
        Columns(text=("title",))


def test_index_of_names_the_first_unknown_item() -> None:
    catalog = Catalog(np.array(["a", "b"], object), *[np.array(["", ""], object)] * 2, ((), ()))
    assert catalog.index_of(["b", "a", "b"]).tolist() == [1, 0, 1]
    assert catalog.index_of([]).dtype == np.int64
    with pytest.raises(ValueError, match="item_id 'x' is not in the catalog of 2 items"):
        catalog.index_of(["a", "x", "y"])


def test_written_and_read_again_a_catalog_is_the_same(tmp_path: Path) -> None:
    text = "item_id,title,category,brand,description\n1,x,A > B | C,m,\n2,,,,d\n"
    catalog, _ = load_items(csv(tmp_path, text), COLUMNS)
    write_catalog(tmp_path / "run" / "items.parquet", catalog)
    again = read_catalog(tmp_path / "run" / "items.parquet")
    assert again.fingerprint == catalog.fingerprint
    assert again.category == catalog.category == ((("A", "B"), ("C",)), ())
    assert again.title.tolist() == ["x", ""]
    assert again.text["description"].tolist() == ["", "d"]


def test_a_run_folders_catalog_can_be_read_as_ones_own_data(tmp_path: Path) -> None:
    catalog, _ = load_items(csv(tmp_path, "item_id,title,category\n1,x,A > B | C\n2,,\n"), COLUMNS)
    write_catalog(tmp_path / "run" / "items.parquet", catalog)
    assert load_items(tmp_path / "run", COLUMNS)[0].fingerprint == catalog.fingerprint


def test_any_change_changes_the_fingerprint() -> None:
    def strings(*values: str) -> np.ndarray:
        return np.array(values, object)

    base = Catalog(strings("a", "b"), strings("t", ""), strings("", ""), ((("A", "B"),), ()))
    others = [
        Catalog(strings("a", "c"), base.title, base.brand, base.category),
        Catalog(base.item_id, strings("t", "u"), base.brand, base.category),
        Catalog(base.item_id, base.title, strings("m", ""), base.category),
        Catalog(base.item_id, base.title, base.brand, ((("A",), ("B",)), ())),
        Catalog(base.item_id, base.title, base.brand, base.category, {"d": strings("", "")}),
    ]
    assert len({one.fingerprint for one in [base, *others]}) == 6
    assert Catalog(base.item_id.copy(), base.title, base.brand, base.category).fingerprint == base.fingerprint


def test_a_foreign_parquet_is_no_catalog(tmp_path: Path) -> None:
    pl.DataFrame({"item_id": ["1"]}).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="no column 'title'"):
        read_catalog(tmp_path / "x.parquet")


def test_joined_catalogs_keep_every_row_and_need_the_same_text_columns(tmp_path: Path) -> None:
    file = csv(tmp_path, "item_id,title,category\nb,x,A > B\nc,,\n") / "items.csv"
    first, _ = load_items_file(file, Columns(text=("size",)))
    second, _ = load_items(csv(tmp_path, "item_id,title,category,size\na,y,C,12\n"), Columns(text=("size",)))
    joined = join_catalogs(first, second)
    assert joined.item_id.tolist() == ["b", "c", "a"]
    assert joined.content(2) == {"title": "y", "brand": "", "category": (("C",),), "size": "12"}
    assert joined.index_of(["a", "b"]).tolist() == [2, 0]
    assert joined.take(np.array([2, 0])).item_id.tolist() == ["a", "b"]
    other, _ = load_items(csv(tmp_path, "item_id,title,category\nz,x,A\n"), Columns(text=()))
    with pytest.raises(ValueError, match="text columns size and none"):
        join_catalogs(first, other)
