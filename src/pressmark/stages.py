"""The stages of a run, each done once: prepare, tokenizer, generator, dual tower, SASRec, hybrid, evaluation.

A finished stage leaves a stamp with the fingerprint of all it was built on. The same stage asked for
again is skipped; the same stage with other settings is refused, so nothing trained is overwritten. A stage
whose folder was deleted is done anew, and two processes never do the same one at once.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from pressmark import distributed
from pressmark.evaluation.record import commit
from pressmark.experiment import Experiment, as_dict, plain
from pressmark.files import file_hash, fingerprint, holding, read_json, replacing, write_json
from pressmark.generator.config import SCRATCH
from pressmark.load import LOADERS, TRAINED, TRAINED_AS, quiet_libraries
from pressmark.recommender import Recommender
from pressmark.training.config import decisive

if TYPE_CHECKING:
    from pressmark.interactions.cases import Split

_LIBRARIES = (
    "torch",
    "transformers",
    "accelerate",
    "datasets",
    "peft",
    "numpy",
    "polars",
    "pyarrow",
    "scikit-learn",
)


def prepare(experiment: Experiment) -> None:
    """Reads, checks and splits the data and computes the text vectors; on rank 0, the others wait.

    A run folder that was prepared elsewhere trains without its data.
    """
    if distributed.rank() == 0 and not _prepared_elsewhere(experiment):
        _once(experiment, "prepare", _prepare_fingerprint, _prepare)
    distributed.barrier()


def train_tokenizer(experiment: Experiment) -> None:
    """Stage one: products to SIDs."""
    from pressmark.tokenizer import train

    prepare(experiment)
    _train(experiment, "tokenizer", lambda: train.train(experiment.run, experiment.tokenizer, experiment.seed))


def train_generator(experiment: Experiment) -> None:
    """Stage two: histories to SIDs."""
    from pressmark.generator import train

    train_tokenizer(experiment)
    _train(experiment, "generator", lambda: train.train(experiment.run, experiment.generator, experiment.seed))


def train_dual_tower(experiment: Experiment) -> None:
    """The main baseline."""
    from pressmark.dual_tower import train

    prepare(experiment)
    _train(
        experiment, "dual_tower", lambda: train.train(experiment.run, experiment.dual_tower, experiment.seed)
    )


def train_sasrec(experiment: Experiment) -> None:
    """The baseline for products that sell."""
    from pressmark.baselines import sasrec

    prepare(experiment)
    _train(experiment, "sasrec", lambda: sasrec.train(experiment.run, experiment.sasrec, experiment.seed))


def train_hybrid(experiment: Experiment) -> None:
    """Generator and dense retrieval as one.

    Raises:
        ValueError: If the generator that is configured is none for it.
    """
    from pressmark.hybrid import train

    if why := _no_hybrid(experiment):
        raise ValueError(f"{why}.")
    train_generator(experiment)
    train_dual_tower(experiment)
    parts = experiment.generator, experiment.dual_tower
    _train(
        experiment, "hybrid", lambda: train.train(experiment.run, experiment.hybrid, *parts, experiment.seed)
    )


def train_alone(model: str, run: Path, config: Any, seed: int) -> None:
    """Trains "generator", "dual_tower" or "sasrec" in a folder that holds what it needs, without any stamp."""
    module = {"generator": "generator.train", "dual_tower": "dual_tower.train", "sasrec": "baselines.sasrec"}
    importlib.import_module(f"pressmark.{module[model]}").train(run, config, seed)


def training_of(run: Path, model: str) -> dict[str, Any]:
    """The record of a finished training, see `training.loop.fit`; empty where there was none."""
    numbers: dict[str, Any] = read_json(run / model / "metrics.json")
    training: dict[str, Any] = numbers.get("training", numbers)
    return training


def _no_hybrid(experiment: Experiment) -> str:
    """Why there can be no hybrid with the generator that is configured; "" if there can."""
    generator = experiment.generator
    if generator.backbone != SCRATCH:
        return f"generator.backbone is {generator.backbone!r}: it has no item head, which the hybrid takes"
    if generator.model.history_input != "causal":
        given = generator.model.history_input
        return f"generator.model.history_input is {given!r}: the hybrid takes the item head of 'causal'"
    if generator.stream:
        return f"generator.stream is {generator.stream!r}: the hybrid holds products of data/train.parquet back"
    return ""


def _names(experiment: Experiment) -> list[str]:
    """The models to be trained and judged: without the hybrid where there can be none."""
    joins = not _no_hybrid(experiment)
    return [name for name in experiment.models if joins or TRAINED_AS.get(name, name) != "hybrid"]


def models_of(experiment: Experiment) -> dict[str, Recommender]:
    """The recommenders to be judged, by name; the synthetic store's oracle too."""
    quiet_libraries()
    run = experiment.run
    models = {name: LOADERS[name](run) for name in _names(experiment)}
    if experiment.data.source == "grocery":
        from pressmark.baselines.oracle import load_oracle
        from pressmark.catalog.grocery import write_grocery
        from pressmark.catalog.items import read_catalog

        # A run that was prepared elsewhere has come without the store; the same settings give it again.
        write_grocery(Path(experiment.data.path), experiment.data.grocery)
        item_id = read_catalog(run / "data" / "items.parquet").item_id
        models["oracle"] = load_oracle(experiment.data.path, item_id)
    return models


def evaluate(experiment: Experiment) -> dict[str, Any]:
    """Trains what is missing, then judges every model of the run; writes `evaluation/`.

    Returns:
        The report, as in evaluation/report.json.
    """
    from pressmark.catalog.embeddings import read_vectors
    from pressmark.catalog.items import read_catalog
    from pressmark.evaluation.harness import evaluate as judge
    from pressmark.interactions.split_files import read_split

    prepare(experiment)
    training = {
        "hybrid": train_hybrid,
        "generator": train_generator,
        "dual_tower": train_dual_tower,
        "sasrec": train_sasrec,
    }
    if len(_names(experiment)) < len(experiment.models):
        print(f"mind: the hybrid is left out: {_no_hybrid(experiment)}.")
    for name in _names(experiment):
        trained = TRAINED_AS.get(name, name)
        if trained in training:
            training[trained](experiment)
    run = experiment.run
    catalog = read_catalog(run / "data" / "items.parquet")
    recommenders = models_of(experiment)
    return judge(
        run,
        recommenders,
        catalog,
        read_split(run / "data", catalog),
        read_vectors(run),
        experiment.evaluation,
        {name: _model_fingerprint(experiment, name) for name in recommenders},
        _statement(experiment),
        f"{experiment.name}: {experiment.split.protocol}, seed {experiment.seed}",
    )


def is_done(experiment: Experiment, stage: str) -> bool:
    """Whether a run has this stage behind it, with whatever settings."""
    return _stamp(experiment, stage).is_file() and _made(experiment, stage).is_file()


def stamped(experiment: Experiment, key: str) -> dict[str, Any]:
    """What each finished stage of a run took in wall "seconds", or the "commit" that it was run at."""
    names = ("prepare", "tokenizer", "generator", "dual_tower", "sasrec", "hybrid")
    stamps = {name: _stamp(experiment, name) for name in names}
    return {name: read_json(stamp)[key] for name, stamp in stamps.items() if stamp.is_file()}


def _statement(experiment: Experiment) -> dict[str, Any]:
    """What each stage saw, for the report: no more than is so with these settings."""
    return {
        "dataset": f"{experiment.name}, ties {experiment.split.ties}",
        "what each stage saw": " ".join(_seen(experiment)),
    }


def _seen(experiment: Experiment) -> Iterator[str]:
    """The statement's sentences on what each stage saw."""
    generator, tokenizer, vectors = experiment.generator, experiment.tokenizer, experiment.vectors
    fitted = "shown to" if experiment.split.tokenizer_sees_cold else "hidden from"
    of_frozen = "" if tokenizer.kind == "given" else " They get SIDs from the frozen tokenizer."
    yield (
        "Interactions with cold items are hidden from everything that is trained or fitted here. Cold items "
        f"themselves are {fitted} whatever is fitted here to the catalog.{of_frozen} They stand in the trie "
        "and in every index."
    )
    if tokenizer.kind == "given":
        yield (
            f"The SIDs, those of cold items too, are given ({tokenizer.given}): what they were made from is "
            "not known here."
        )
    if vectors.model == "precomputed":
        yield (
            f"The vectors, those of cold items too, are precomputed ({vectors.path}): what they were made from "
            "is not known here."
        )
    trained = {TRAINED_AS.get(one, one) for one in _names(experiment)}
    if experiment.split.protocol == "temporal" and trained & {"hybrid", "popularity"}:
        yield (
            "What was bought between the cuts trained nothing. It is past when the test asks: popularity "
            "counts it, and so does the hybrid for what sells, and how much of it now."
        )
    if not trained & {"generator", "hybrid"}:
        return
    if generator.init_from:
        yield (
            f"The generator goes on from that of {generator.init_from}: no interaction with an item that is "
            "hidden here is in that run's data/train.parquet; what else is there, test cases of other items "
            "too, was not hidden from it."
        )
    if generator.stream:
        yield (
            f"The generator is trained on the histories of {generator.stream}: none holds an item that is "
            "hidden here; whether they hold test cases of other items is not known."
        )
    if generator.backbone != SCRATCH:
        yield f"What the generator's backbone ({generator.backbone}) was trained on before is not known here."
        if generator.finetune.alignment.kinds and generator.finetune.alignment.cold_items:
            yield (
                "The generator is trained on the text and the SIDs of cold items too "
                "(generator.finetune.alignment.cold_items)."
            )
    if "hybrid" in trained:
        yield (
            "To fit its weights the hybrid hides some validation targets once more and trains its parts anew, "
            "on the run's own tokenizer and vectors, from which the text of those targets was not hidden."
        )


def _prepare(experiment: Experiment) -> None:
    from pressmark.catalog.embeddings import check_columns, embed, point_to_vectors
    from pressmark.catalog.items import load_items, write_catalog
    from pressmark.interactions.log import load_interactions, summary
    from pressmark.interactions.split_files import write_split
    from pressmark.interactions.splits import make_split
    from pressmark.interactions.times import strange_times

    data, run = experiment.data, experiment.run
    if not experiment.vectors.path:
        check_columns(experiment.vectors.columns, data.columns.text)
    folder = Path(data.path)
    catalog, item_counts = load_items(folder, data.columns)
    log, log_counts = load_interactions(folder, data.columns, catalog)
    split = make_split(log, len(catalog), experiment.split, experiment.seed)
    with replacing(run / "data") as partial:
        partial.mkdir(parents=True)
        write_catalog(partial / "items.parquet", catalog)
        write_split(partial, split, catalog)
        write_json(partial / "counts.json", {"items": item_counts, "interactions": log_counts})
    print(summary({**item_counts, **log_counts, **split.counts}))
    for one in [*strange_times(log.timestamp), *_doubts(experiment, split)]:
        print(f"mind: {one}")
    _, vectors_path = embed(catalog, experiment.vectors, experiment.vectors_cache, split.fitted_on)
    point_to_vectors(run, vectors_path)


def _prepared_elsewhere(experiment: Experiment) -> bool:
    """Whether the run folder was prepared and has come to this machine without the data."""
    if not is_done(experiment, "prepare") or Path(experiment.data.path).is_dir():
        return False
    done = read_json(_stamp(experiment, "prepare"))
    changed = _differences(done["settings"], _settings(experiment, "prepare"))
    if changed := [one for one in changed if not one.startswith("data.path ")]:
        raise _other_settings(experiment, "prepare", changed)
    return True


def _doubts(experiment: Experiment, split: Split) -> list[str]:
    """What is allowed, and seldom meant."""
    from pressmark.insight.sizes import suggest

    doubts = []
    if experiment.split.protocol == "cold_items" and not split.cold.any():
        share, targets = experiment.split.cold_share, len(np.unique(split.test.target))
        doubts.append(
            f"no item is held out as cold: {share:g} of {targets} distinct test targets rounds to 0. "
            "Raise split.cold_share, or judge by split.protocol leave_one_out."
        )
    if experiment.tokenizer.kind == "given":  # sizes that are not ours to choose
        return doubts
    fitted, needed = int(split.fitted_on.sum()), max(experiment.tokenizer.level_sizes)
    if fitted < needed:
        doubts.append(
            f"the tokenizer may learn from {fitted} items and a level has {needed} codes: lower "
            "tokenizer.level_sizes before training."
        )
    elif (usual := suggest(len(split.fitted_on), fitted).level_sizes)[0] * 2 < needed:
        doubts.append(
            f"{fitted:,} items to learn from are few for {needed} codes a level: many a code would be one "
            f"product's. Usual for as many: --tokenizer.level_sizes '{list(usual)}'."
        )
    return doubts


def _prepare_fingerprint(experiment: Experiment) -> str:
    data = experiment.data
    if data.source == "grocery":
        from pressmark.catalog.grocery import write_grocery

        write_grocery(Path(data.path), data.grocery)
    if not data.path:
        raise ValueError(
            "data.path is empty: give the folder that holds items and interactions (--data.path D)."
        )
    from pressmark.catalog.embeddings import source_fingerprint
    from pressmark.catalog.tables import find_table

    folder = Path(data.path)
    if not folder.is_dir():
        raise ValueError(f"data.path {folder}: no such folder.")
    files = [find_table(folder, name) for name in ("items", "interactions")]
    settings = as_dict(experiment)
    return fingerprint(
        [file_hash(one) for one in files],
        settings["data"]["columns"],
        settings["split"],
        settings["vectors"],
        source_fingerprint(experiment.vectors),
        experiment.seed,
    )


def _train(experiment: Experiment, stage: str, train: Callable[[], None]) -> None:
    """Runs a training stage on every process, unless its stamp says that it is done."""

    def work(_: Experiment) -> None:
        _begin(experiment, stage)
        train()
        if distributed.rank() == 0:
            _draw_curves(experiment.run, stage)

    _once(experiment, stage, _stage_fingerprint, work)
    distributed.barrier()
    if distributed.rank() == 0:
        _keep_logs(experiment.run, stage)


def _begin(experiment: Experiment, stage: str) -> None:
    """Writes down what a training is begun with, beside its checkpoints.

    Raises:
        ValueError: If it was begun with other settings, naming them, and there is a checkpoint of it.
    """
    place = experiment.run / "training" / stage
    begun, settings = place / "settings.json", _settings(experiment, stage)
    before = read_json(begun) if begun.is_file() and any(place.glob("step-*")) else settings
    distributed.barrier()
    if changed := _differences(before, settings):
        raise ValueError(
            f"{place}: the training of the {stage} that was cut off there had other settings: "
            f"{', '.join(changed)}. Set them as they were to go on, or delete {place} to start again."
        )
    if distributed.rank() == 0:
        write_json(begun, settings)


def _draw_curves(run: Path, stage: str) -> None:
    """Draws a trained stage's `logs/<stage>.png`."""
    from pressmark.training.curves import curves

    training, picture = training_of(run, stage), run / "logs" / f"{stage}.png"
    if training.get("losses"):
        with replacing(picture) as partial:
            partial.write_bytes(curves(stage, training))


def _keep_logs(run: Path, stage: str) -> None:
    """Keeps a finished stage's curves (`tensorboard --logdir <run>/logs`) and drops its checkpoint."""
    place = run / "training" / stage
    if (place / "logs").is_dir():
        with replacing(run / "logs" / stage) as partial:
            (place / "logs").rename(partial)
    shutil.rmtree(place, ignore_errors=True)


def _stage_fingerprint(experiment: Experiment, stage: str) -> str:
    """Of a stage's own settings and of the stage it reads."""
    upstream = {"generator": ["tokenizer"], "hybrid": ["generator", "dual_tower"]}.get(stage, ["prepare"])
    built_on = "".join(read_json(_stamp(experiment, one))["fingerprint"] for one in upstream)
    given, source = _given(experiment, stage), []
    if given and Path(given).exists():
        source = [_contents(Path(given))]
    elif given and (stamp := _stamp(experiment, stage)).is_file():
        done = read_json(stamp)
        if done["settings"] == _settings(experiment, stage):
            return str(done["fingerprint"])  # done elsewhere, where the file was
    return fingerprint(stage, built_on, plain(decisive(getattr(experiment, stage))), experiment.seed, *source)


def _given(experiment: Experiment, stage: str) -> str:
    """What a stage reads from outside the run, a published tokenisation, shards or a backbone; "" for none."""
    generator = experiment.generator
    of_generator = generator.stream if generator.backbone == SCRATCH else generator.backbone
    return {"tokenizer": experiment.tokenizer.given, "generator": of_generator}.get(stage, "")


def _contents(given: Path) -> Any:
    """What a fingerprint is made of: a file's bytes, the names and sizes of shards, a model's weights."""
    if given.is_file():
        return file_hash(given)
    shards = [[one.name, one.stat().st_size] for one in sorted(given.glob("*.parquet"))]
    if shards:
        return shards
    from pressmark.generator.hf_folder import fingerprint_of

    return fingerprint_of(given)


def _model_fingerprint(experiment: Experiment, model: str) -> str:
    """Of all that an answer depends on: what the model was built on, and the code that asks it."""
    trained = TRAINED_AS.get(model, model)
    stage = trained if trained in TRAINED else "prepare"
    built_on = read_json(_stamp(experiment, stage))["fingerprint"]
    # Scores may differ in their last bits by how many requests are answered together.
    together = experiment.evaluation.batch_size
    return fingerprint(model, built_on, as_dict(experiment).get(model), together, _code_fingerprint())


@functools.cache
def _code_fingerprint() -> str:
    here = Path(__file__).parent
    return fingerprint([file_hash(one) for one in sorted(here.rglob("*.py"))])


def _stamp(experiment: Experiment, stage: str) -> Path:
    return experiment.run / "stages" / f"{stage}.json"


def _once(
    experiment: Experiment,
    stage: str,
    fingerprint_of: Callable[..., str],
    work: Callable[[Experiment], None],
) -> None:
    """Does `work` and stamps it, or finds it done.

    Raises:
        ValueError: If the stage was done with other settings, naming them.
    """
    built = fingerprint_of(experiment) if stage == "prepare" else fingerprint_of(experiment, stage)
    stamp = _stamp(experiment, stage)
    settings = _settings(experiment, stage)
    # Every process decides before the first one writes the stamp.
    done = read_json(stamp) if is_done(experiment, stage) else None
    if stage != "prepare":
        distributed.barrier()
    if done and done["fingerprint"] != built:
        changed = _differences(done["settings"], settings) or ["the data or an earlier stage"]
        raise _other_settings(experiment, stage, changed)
    if done:
        return
    with _alone(experiment, stage):
        started, at = time.perf_counter(), commit()
        if distributed.rank() == 0:
            print(f"--- {stage}: {experiment.run}", flush=True)
            _write_config(experiment)
        quiet_libraries()
        work(experiment)
        if distributed.rank() == 0:
            seconds = round(time.perf_counter() - started, 1)
            made = {"fingerprint": built, "seconds": seconds, "commit": at, "settings": settings}
            write_json(stamp, made)
            print(f"--- {stage}: done in {seconds} s", flush=True)


def _made(experiment: Experiment, stage: str) -> Path:
    """A file that the stage leaves."""
    run = experiment.run
    return run / "data" / "items.parquet" if stage == "prepare" else run / stage / "config.json"


@contextmanager
def _alone(experiment: Experiment, stage: str) -> Iterator[None]:
    """Keeps another command from the same stage of the same run.

    Raises:
        ValueError: On every process, if one is at work on it.
    """
    folder, refused = experiment.run / "stages", ""
    with ExitStack() as held:
        if distributed.rank() == 0:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                held.enter_context(holding(folder / f".{stage}.lock", f"pressmark {stage}"))(False)
            except ValueError as error:
                refused = str(error)
            if not refused and is_done(experiment, stage):  # since it was asked for
                refused = f"{experiment.run}: another command has just done {stage}. Give this one again."
        if stage != "prepare":  # which the first process does by itself
            refused = distributed.broadcast_object(refused)
        if refused:
            raise ValueError(refused)
        yield


def _other_settings(experiment: Experiment, stage: str, changed: list[str]) -> ValueError:
    again = experiment.run if stage == "prepare" else experiment.run / stage
    return ValueError(
        f"{experiment.run}: {stage} was done with other settings: {', '.join(changed)}. "
        f"Use another --run_dir, or delete {again} to do it again."
    )


def _settings(experiment: Experiment, stage: str) -> dict[str, Any]:
    """A stage's own part of the configuration, flat: {"tokenizer.epochs": 3}."""
    everything = as_dict(experiment)
    if stage != "prepare":
        everything[stage] = plain(decisive(getattr(experiment, stage)))
    keys = ["data", "split", "vectors", "seed"] if stage == "prepare" else [stage, "seed"]
    flat: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, one in value.items():
                walk(f"{prefix}.{key}", one)
        else:
            flat[prefix] = value

    for key in keys:
        walk(key, everything[key])
    return flat


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [
        f"{key} was {before.get(key)!r}, is {now.get(key)!r}"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]


def _write_config(experiment: Experiment) -> None:
    record = {
        "pressmark": _version("pressmark"),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "experiment": as_dict(experiment),
    }
    with replacing(experiment.run / "config.yaml") as partial:
        partial.write_text(yaml.safe_dump(record, sort_keys=False, allow_unicode=True), "utf-8")


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
