"""What somebody decided, read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pressmark.catalog.items import Catalog
from pressmark.insight.categories.leaves import leaves_of
from pressmark.insight.categories.review import Review, read_review
from pressmark.tokenizer.state import Living

HEAD = "kind,subject,object,decision\n"


def read(path: Path, text: str) -> Review:
    """In a shop of products a and b, from which gone was removed."""
    ids = np.array(["a", "b", "gone"], object)
    category = ((("Dairy", "Milk"),), (("Dairy", "New\nLine"),), (("Pets",),))
    catalog = Catalog(ids, ids, ids, category)
    living = Living(catalog, 3, np.array([True, True, False]), ())
    (path / "r.csv").write_text(text, "utf-8")
    return read_review(path / "r.csv", living, leaves_of(catalog.take(np.arange(2))))


def test_a_removed_product_is_only_counted(tmp_path: Path) -> None:
    found = read(tmp_path, HEAD + "category,gone,Pets,accepted\nsplit,Dairy > Milk,,rejected\n")
    assert found.decided == {("category", "gone", "Pets"), ("split", "Dairy > Milk", "")}
    (note,) = found.notes
    assert note.endswith("1 product ids are not in the catalog, such as 'gone': left.")
    with pytest.raises(ValueError, match="holds none of its 1 products, such as 'other'"):
        read(tmp_path, HEAD + "category,other,Pets,accepted\n")


def test_a_pair_is_the_same_in_either_order(tmp_path: Path) -> None:
    found = read(tmp_path, HEAD + "duplicate,b,a,rejected\nduplicate,a,b,rejected\n")
    assert found.rows == (("duplicate", "a", "b", "rejected"),)
    assert not found.notes


def test_the_later_decision_counts(tmp_path: Path) -> None:
    found = read(tmp_path, HEAD + "category,a,Dairy > Milk,accepted\ncategory,a,Dairy > Milk,rejected\n")
    assert found.rows == (("category", "a", "Dairy > Milk", "rejected"),)
    assert "1 decisions are taken back further down, such as on 'category a Dairy > Milk'" in found.notes[0]


def test_a_category_that_is_nowhere_is_counted(tmp_path: Path) -> None:
    found = read(tmp_path, HEAD + "split,No such,,rejected\nmerged,Dairy > Milk,Other,rejected\n")
    (note,) = found.notes
    assert note.endswith("2 categories are not in the catalog, such as 'No such': left.")


def test_a_name_of_two_lines(tmp_path: Path) -> None:
    found = read(tmp_path, HEAD + 'category,b,"Dairy > New\nLine",accepted\r\n')
    assert found.decided == {("category", "b", "Dairy > New\nLine")}
    assert not found.notes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "its first line does not name 'kind'"),
        ("item_id;foo\n", "its first line does not name 'kind'"),
        (HEAD + "category,a,Milk\n", "row 2 has no 'decision'"),
        (HEAD + 'category,"a,Milk,accepted\n' + "x" * 140_000 + "\n", "not CSV .* quotation mark not closed"),
        (HEAD + 'category,"a,Milk,accepted\nsplit,Milk,,accepted\n', "not CSV .* quotation mark not closed"),
    ],
)
def test_what_is_no_review(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"r.csv: .*{said}"):
        read(tmp_path, text)


def test_nothing_decided_yet(tmp_path: Path) -> None:
    assert read(tmp_path, HEAD) == Review((), ())
