"""What pictures share: colours, text, and PNG without a display or global state."""

from __future__ import annotations

import io
import warnings
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.text import Text

# Okabe and Ito's colours, which stay apart for colour-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INK, QUIET, GRID, OTHER = "#24292f", "#57606a", "#e3e6ea", "#c3c9d0"


def png(drawn: Figure) -> bytes:
    """A figure as PNG; the same figure gives the same bytes, since no date is in the file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    for panel in drawn.axes:  # makes the labels of its ticks
        panel.get_xticklabels(), panel.get_yticklabels()
    for text in drawn.findobj(Text):
        assert isinstance(text, Text)
        _add_fonts(text)
    buffer = io.BytesIO()
    FigureCanvasAgg(drawn)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # no font here has it: drawn as a box
        drawn.savefig(buffer, format="png", dpi=150, facecolor="white", metadata={"Software": ""})
    return buffer.getvalue()


def _add_fonts(text: Text) -> None:
    """Lets a text fall back on other fonts for letters that its own lacks."""
    from matplotlib.font_manager import findfont

    if text.get_text().isascii():
        return
    families = text.get_fontfamily()
    lacking = set(text.get_text()) - {"\n"} - _letters_in(findfont(text.get_fontproperties()))
    for name, path in _fonts() if lacking else ():
        if lacking & _letters_in(path):
            families = [*families, name]
            lacking -= _letters_in(path)
    text.set_fontfamily(families)


@cache
def _letters_in(path: str) -> frozenset[str]:
    from matplotlib.font_manager import get_font

    return frozenset(map(chr, get_font(path).get_charmap()))


@cache
def _fonts() -> tuple[tuple[str, str], ...]:
    """Name and file of every upright font, but for that which draws any letter as a box with its number."""
    from matplotlib.font_manager import fontManager

    upright = {(one.name, one.fname) for one in fontManager.ttflist if one.style == "normal"}
    return tuple(sorted(one for one in upright if not one[0].startswith("Last Resort")))


def literal(text: str) -> str:
    """Text for a picture, in which matplotlib would read $...$ as mathematics."""
    return text.replace("$", r"\$")
