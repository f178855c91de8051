"""Category paths as users write them: lists or strings, one path or several, with gaps."""

from __future__ import annotations

import ast
import json
import re
from typing import Any, NamedTuple

CategoryPath = tuple[str, ...]

# A separator stands between spaces (or at an end), so that "Salt|Pepper" and "A->B" stay names. The
# lookahead leaves the space to the next separator: "A > > B" has an empty segment in the middle.
_LEVEL = re.compile(r"(?:^|\s)>(?=\s|$)")
_PATH = re.compile(r"(?:^|\s)\|(?=\s|$)")


class ParsedCategory(NamedTuple):
    """An item's category.

    Attributes:
        paths: Distinct paths in the order given, names from root to leaf; () for no category.
        num_empty: Empty segments that were left out; the path closes up.
        num_repeated: Paths that said the same as an earlier one.
    """

    paths: tuple[CategoryPath, ...]
    num_empty: int
    num_repeated: int


def parse_category(value: Any) -> ParsedCategory:
    """Reads a category: null, a string, a list of names (one path), or a list of such lists.

    Names lose spaces at their ends. In lists nothing is split: a name may hold " > ". A string that holds a
    list, as '["Dairy", "Milk"]', is that list.

    Raises:
        ValueError: If the value has another form; the message is the rule.

    >>> parse_category("Dairy > Milk | Vegan > Drinks").paths
    (('Dairy', 'Milk'), ('Vegan', 'Drinks'))
    >>> parse_category(["Dairy", "", "Milk"])
    ParsedCategory(paths=(('Dairy', 'Milk'),), num_empty=1, num_repeated=0)
    >>> parse_category([["Dairy"], ["Dairy"]])
    ParsedCategory(paths=(('Dairy',),), num_empty=0, num_repeated=1)
    >>> parse_category(None).paths
    ()
    """
    num_empty = 0
    paths = []
    for segments in _raw_paths(value):
        names = [name.strip() for name in segments]
        num_empty += names.count("")
        if any(names):
            paths.append(tuple(name for name in names if name))
    distinct = tuple(dict.fromkeys(paths))
    return ParsedCategory(distinct, num_empty, len(paths) - len(distinct))


def _raw_paths(value: Any) -> list[list[str]]:
    if value is None or value != value:  # NaN is pandas' null
        return []
    if isinstance(value, (str, bytes)):
        text = _name(value)
        if text.lstrip().startswith("[") and text.rstrip().endswith("]"):
            return _raw_paths(_written_list(text.strip()))
        return [_LEVEL.split(path) for path in _PATH.split(text)] if text.strip() else []
    if isinstance(value, list):
        if any(isinstance(one, list) for one in value):
            return [[_name(name) for name in path or ()] for path in value if _is_path(path)]
        return [[_name(name) for name in value]]
    return [[_name(value)]]


def _written_list(text: str) -> list[Any]:
    """A list that was written into a text column, as JSON or as Python shows it.

    numpy shows arrays without commas, which Python would read as one long name: refused.
    """
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text)
        except (ValueError, SyntaxError, RecursionError):
            continue
        if isinstance(value, list) and not re.search(r"""['"]\s+['"]""", text):
            return value
    raise ValueError("a list written as text that cannot be read")


def _is_path(path: Any) -> bool:
    if path is None or isinstance(path, list):
        return True
    raise ValueError("a category is a list of names, a list of such lists, or a string, not a mixture")


def _name(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (str, int, float)):
        return str(value)
    raise ValueError("a name in a category is a string; lists nest at most twice")
