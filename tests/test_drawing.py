"""Text in pictures: letters that no font has must neither warn nor vanish."""

from __future__ import annotations

import warnings

import pytest
from matplotlib.figure import Figure

from pressmark import drawing

KANJI = "\u65e5\u672c\u6620\u753b"


@pytest.mark.parametrize(
    "name", [f"{KANJI} films", "\u041a\u0438\u043d\u043e", f"{KANJI}\n\U0001f600 \u0000", "caf\u00e9"]
)
def test_no_warning_for_any_letter(name: str) -> None:
    drawn = Figure(layout="constrained")
    panel = drawn.add_subplot()
    panel.set_title(name, fontweight="bold")
    panel.plot([1, 2], label=name)
    panel.legend()
    panel.set_xticks([0, 1], [name, name])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert drawing.png(drawn)


def test_a_font_that_has_the_letters_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Figure()
    text = drawn.text(0, 0, f"Drama \u222f {KANJI}", family="DejaVu Serif")
    has = drawing._letters_in
    monkeypatch.setattr(drawing, "_letters_in", lambda path: has(path) - set("\u222f" * ("Serif" in path)))
    drawing.png(drawn)
    first, second = text.get_fontfamily()
    assert (first, "Serif" in second) == ("DejaVu Serif", False)
