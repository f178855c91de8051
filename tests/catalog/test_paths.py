from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pressmark.catalog.paths import parse_category


@pytest.mark.parametrize(
    ("value", "paths"),
    [
        ("A > B", (("A", "B"),)),
        ("A>B", (("A>B",),)),
        ("Salt|Pepper | C", (("Salt|Pepper",), ("C",))),
        ("A  >  B", (("A", "B"),)),
        (" | A", (("A",),)),
        ("  ", ()),
        (float("nan"), ()),
        (["A > B", "C"], (("A > B", "C"),)),
        ([["A"], None, []], (("A",),)),
        ([1, 2.5], (("1", "2.5"),)),
        (b"A > \xff", (("A", "\ufffd"),)),
    ],
)
def test_forms(value: Any, paths: tuple[tuple[str, ...], ...]) -> None:
    assert parse_category(value).paths == paths


def test_empty_names_are_counted_in_every_form() -> None:
    assert parse_category("A > > B | > C").num_empty == 2
    assert parse_category([["A", ""], [None, " "]]) == ((("A",),), 3, 0)


def test_the_same_path_after_closing_up_is_a_repetition() -> None:
    assert parse_category("A > B | A > > B | C | C").num_repeated == 2


names = st.text(alphabet="ab >|é", min_size=1, max_size=4).filter(lambda name: name == name.strip())
plain = st.text(alphabet="abé-", min_size=1, max_size=4)


@given(st.lists(st.lists(names, min_size=1, max_size=4), min_size=1, max_size=3))
def test_lists_keep_every_name(paths: list[list[str]]) -> None:
    assert parse_category(paths).paths == tuple(dict.fromkeys(map(tuple, paths)))


@given(st.lists(st.lists(plain, min_size=1, max_size=4), min_size=1, max_size=3))
def test_a_string_says_the_same_as_lists(paths: list[list[str]]) -> None:
    assert parse_category(" | ".join(" > ".join(path) for path in paths)) == parse_category(paths)
