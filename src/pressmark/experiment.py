"""One experiment: every room's own config, composed. The only reader of YAML and flags."""

from __future__ import annotations

import dataclasses
import difflib
import re
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from pressmark.baselines import sasrec_config as sasrec
from pressmark.catalog import embeddings, grocery, items
from pressmark.dual_tower import config as dual_tower
from pressmark.evaluation import config as evaluation
from pressmark.generator import config as generator
from pressmark.hybrid import config as hybrid
from pressmark.interactions import splits
from pressmark.load import LOADERS, TRAINED_AS
from pressmark.tokenizer import config as tokenizer


@dataclass(frozen=True)
class Data:
    """Where the catalog and the interactions come from.

    Attributes:
        source: "folder" reads the user's own items and interactions; "grocery" first writes the synthetic
            grocery store to `path`.
        path: Folder with items.{parquet,csv,jsonl} and interactions.{parquet,csv,jsonl}.
        columns: Column names in those files.
        grocery: Size and seed of the synthetic store.
    """

    source: Literal["folder", "grocery"] = "folder"
    path: str = ""
    columns: items.Columns = field(default_factory=items.Columns)
    grocery: grocery.Config = field(default_factory=grocery.Config)


@dataclass(frozen=True)
class Experiment:
    """Everything that decides what a run computes.

    Attributes:
        name: Names the folder under runs/ and the records under eval/results/.
        seed: Of the split and of every model.
        run_dir: Run folder; empty means runs/<name>/<split.protocol>/seed<seed>.
        data: Input.
        split: What is trained on and what is held out.
        vectors: Text to vectors.
        tokenizer: Stage one.
        generator: Stage two.
        dual_tower: The main baseline.
        sasrec: The baseline for products that sell.
        hybrid: Generator and dense retrieval as one recommender.
        models: What is trained and judged, in this order; see `pressmark.load`.
        evaluation: The judge.
    """

    name: str = "own"
    seed: int = 0
    run_dir: str = ""
    data: Data = field(default_factory=Data)
    split: splits.Config = field(default_factory=splits.Config)
    vectors: embeddings.Config = field(default_factory=embeddings.Config)
    tokenizer: tokenizer.Config = field(default_factory=tokenizer.Config)
    generator: generator.Config = field(default_factory=generator.Config)
    dual_tower: dual_tower.Config = field(default_factory=dual_tower.Config)
    sasrec: sasrec.Config = field(default_factory=sasrec.Config)
    hybrid: hybrid.Config = field(default_factory=hybrid.Config)
    models: tuple[str, ...] = tuple(name for name in LOADERS if name not in TRAINED_AS)
    evaluation: evaluation.Config = field(default_factory=evaluation.Config)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must be 0 or more.")
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise ValueError(f"name is {self.name!r}; use letters, digits, '-', '_' and '.' only.")

        if not self.models or not set(self.models) <= set(LOADERS):
            raise ValueError(f"models is {self.models}; name some of {', '.join(LOADERS)}.")

    @property
    def run(self) -> Path:
        """The run folder: one configuration, one split, one seed."""
        if self.run_dir:
            return Path(self.run_dir)
        ties = "-shuffled" if self.split.ties == "shuffled" else ""
        return Path("runs") / self.name / f"{self.split.protocol}{ties}" / f"seed{self.seed}"

    @property
    def vectors_cache(self) -> Path:
        """Folder of text vectors: shared by the runs of a catalog, or the run's own under `run_dir`."""
        return (self.run if self.run_dir else Path("runs") / self.name) / "vectors"


def as_dict(config: Any) -> dict[str, Any]:
    """A config dataclass as plain nested values, tuples as lists."""
    found: dict[str, Any] = plain(dataclasses.asdict(config))
    return found


def plain(value: Any) -> Any:
    """Nested values with lists for tuples, as JSON has them."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def with_keys(config: Any, keys: Mapping[str, Any]) -> Any:
    """A config dataclass with some keys set, such as {"model.dropout": 0.1}."""
    for key, value in keys.items():
        room, _, rest = key.partition(".")
        config = dataclasses.replace(
            config, **{room: with_keys(getattr(config, room), {rest: value}) if rest else value}
        )
    return config


def parse(
    argv: Sequence[str] | None = None, prog: str | None = None, extra: dict[str, Any] | None = None
) -> tuple[Experiment, dict[str, Any]]:
    """Reads `--config FILE --section.key value ...` into an Experiment.

    Args:
        argv: Command line without the program's name; sys.argv by default.
        prog: Program name for the help.
        extra: name -> keyword arguments of `add_argument`: options of one command beside the experiment's.

    Returns:
        The experiment and the values of the extra options.

    Exits with status 2 and one clear line for an unknown key (with the nearest valid one), a wrong type
    or a missing file.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = ArgumentParser(prog=prog, exit_on_error=False, description=_HELP)
    parser.add_argument("--config", action="config", help="YAML file; the grocery store's by default")
    for name, options in (extra or {}).items():
        parser.add_argument(f"--{name}", **options)
    parser.add_class_arguments(Experiment)
    fields = {one.name for one in dataclasses.fields(Experiment)}
    try:
        built = parser.instantiate(parser.parse_args(_with_config(arguments)))
        experiment = Experiment(**{name: built[name] for name in fields})
    except (ArgumentError, ValueError, TypeError) as error:
        _fail(parser, str(error))
    return experiment, {name: built[name.replace("-", "_")] for name in extra or {}}


_HELP = "Every option is a key of the YAML file; a flag after --config overrides it."


def _with_config(arguments: list[str]) -> list[str]:
    """Puts the default config in front, and finds a config that ships with the package."""
    given = any(one == "--config" or one.startswith("--config=") for one in arguments)
    if not given and not {"--help", "-h"} & set(arguments):
        arguments = ["--config", "configs/grocery.yaml", *arguments]
    found = []
    for number, one in enumerate(arguments):
        if number and arguments[number - 1] == "--config":
            one = _readable(find_config(one))
        elif one.startswith("--config="):
            one = "--config=" + _readable(find_config(one.removeprefix("--config=")))
        found.append(one)
    return found


def find_config(path: str) -> Path:
    """`path` itself, or the file of that name among the configs that ship with Pressmark.

    Raises:
        ValueError: If there is neither.
    """
    checkout = Path(__file__).parents[2] / "configs"
    installed = Path(sysconfig.get_path("data")) / "share" / "pressmark" / "configs"
    for candidate in (Path(path), checkout / Path(path).name, installed / Path(path).name):
        if candidate.is_file():
            return candidate
    shipped = sorted({one.name for folder in (checkout, installed) for one in folder.glob("*.yaml")})
    raise ValueError(f"--config {path}: no such file. Shipped with Pressmark: {', '.join(shipped)}.")


def _readable(path: Path) -> str:
    """The path of a config, once it is sure to hold keys with values."""
    try:
        keys = yaml.safe_load(path.read_bytes())
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or error
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "the file"
        raise ValueError(
            f"{path}: {where}: not valid YAML ({problem}). Look there and a line above for a bracket, quote "
            "or space too many or too few."
        ) from error
    if not isinstance(keys, dict) or all(value is None for value in keys.values()):
        raise ValueError(f"{path}: holds no key with a value; write lines such as 'seed: 0'.")
    return str(path)


_KINDS = {
    "<class 'int'>": "a whole number",
    "<class 'float'>": "a number",
    "<class 'bool'>": "true or false",
    "<class 'str'>": "text",
    "list[int]": "a list of whole numbers",
}


def _plain_words(message: str, defaults: Mapping[str, Any]) -> str:
    """jsonargparse's message for a value of another type as key, value and rule; any other as it is."""
    found = re.match(r'Parser key "([\w.]+)":\s*(.*)', message, re.DOTALL)
    if not found:
        return message
    key, rest = found.groups()
    if no_file := re.match("Unable to load config '(.*)'", rest):
        one = next(name for name in defaults if name.startswith(f"{key}."))
        return f"{key} is {no_file[1]!r}; it is a group of keys: set one of them, such as {one}."
    value = re.split("Got value: |Given value: ", rest)[-1]
    kind = re.search(r"Subtypes: \[(.*)\]", rest) or re.search(r"Expected a (.*?)\. Got value", rest)
    if kind is None or value == rest:
        return message
    if "tuple" in kind[1]:
        return f"{key} is {value!r}; it must be a list: write [{value}], on a command line in quotes."
    choices = re.findall(r"'([^']*)'", kind[1]) if "Literal" in kind[1] else []
    kinds = [words for name, words in _KINDS.items() if name in kind[1]]
    rule = f"one of {', '.join(choices)}" if choices else " or ".join(kinds) or kind[1]
    if isinstance(defaults.get(key), (list, tuple)) and "Subtypes" not in rest:
        return f"{key} holds {value!r}; each of its values must be {rule}."
    return f"{key} is {value!r}; it must be {rule}."


def _fail(parser: ArgumentParser, message: str) -> NoReturn:
    defaults = dict(parser.get_defaults().items())
    known = [key for key in defaults if key != "config"]
    hint = ""
    for wrong in re.findall(r"--([\w.]+)", message.split("unrecognized arguments:")[-1])[:1] or [
        ".".join(found)
        for found in re.findall(r"[Gg]roup '([\w.]+)' does not accept option '([\w.]+)'", message)
    ]:
        near = difflib.get_close_matches(wrong, known, n=1, cutoff=0.5)
        hint = f"\nDid you mean --{near[0]}?" if near and near[0] != wrong else ""
    print(f"{parser.prog}: error: {_plain_words(message, defaults)}{hint}", file=sys.stderr)
    raise SystemExit(2)
