"""What pictures share: colours, text, and PNG without a display or global state."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which stay apart for colour-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INK, QUIET, GRID, OTHER = "#24292f", "#57606a", "#e3e6ea", "#c3c9d0"


def png(drawn: Figure) -> bytes:
    """A figure as PNG; the same figure gives the same bytes, since no date is in the file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(drawn)
    drawn.savefig(buffer, format="png", dpi=150, facecolor="white", metadata={"Software": ""})
    return buffer.getvalue()


def literal(text: str) -> str:
    """Text for a picture, in which matplotlib would read $...$ as mathematics."""
    return text.replace("$", r"\$")
