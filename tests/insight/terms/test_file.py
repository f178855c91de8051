from __future__ import annotations

from pathlib import Path

import pytest

from pressmark.insight.terms.file import read_terms, write_terms


def test_round_trip_and_what_people_write(tmp_path: Path) -> None:
    path = tmp_path / "terms.txt"
    write_terms(path, ["nail polish", "cr\u00e8me"])
    assert read_terms(path) == ["nail polish", "cr\u00e8me"]
    path.write_text("\ufeff# mine\n\n  Stir-Fry Sauce  \nshampoo\r\n", "utf-8")
    assert read_terms(path) == ["stir fry sauce", "shampoo"]
    path.write_text("Salt  &  Pepper\nM.A.C Lip-Stick!\n", "utf-8")
    assert read_terms(path) == ["salt & pepper", "m.a.c lip stick"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"terms.txt: no term in it. Write one a line"),
        ("# only a comment\n\n", r"no term in it"),
        ("shampoo\n# x\nSham-poo\nSHAMPOO\n", r"line 4: 'shampoo' stands in line 1 already"),
        ("salt&pepper\nSalt & Pepper\n", r"line 2: 'salt&pepper' stands in line 1 already"),
        ("shampoo\n---\n", r"line 2: '---' has no word"),
    ],
)
def test_what_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "terms.txt"
    path.write_text(text, "utf-8")
    with pytest.raises(ValueError, match=message):
        read_terms(path)


def test_no_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        read_terms(tmp_path / "none.txt")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_terms(tmp_path / "bytes.txt")
