"""How long the generator trains, beside the usual loop: Hugging Face's Seq2SeqTrainer on prefix samples.

    python eval/bench_training.py --config C.yaml --split.protocol leave_one_out [--minutes 60] [--record true]

Trains the run's tokenizer first where it is missing. Both engines have the run's widths, layers, dropout and
batch size, see the same targets, run on the same threads and are validated on the same cases with one beam.
`hf` is the recipe of the literature: four encoder positions an item, every prefix a sample, samples of about
one length together, cross-entropy over the whole vocabulary, answers normalised so. `pressmark` is the run's
own configuration. Each runs in a process of its own, one after the other; seconds are of training alone,
validation is taken out.

`speedup` is what `hf` took to the best NDCG@10 that both reached over what `pressmark` took, both rounded up to
a validation. Utilisation counts the products of a step, the mean over batches of the engine's own, against the
rate of one large product. Both compute in float32; on a GPU in bf16, and peak memory is then the GPU's. `hf`
has our faster dropout too, keeps its rate of 1e-3 and drops attention weights; `pressmark`'s rate decays.
"""

import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from torch.utils.flop_counter import FlopCounterMode
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, T5ForConditionalGeneration, TrainerCallback

from pressmark import stages
from pressmark.cli import guarded
from pressmark.evaluation.memory import held_gib
from pressmark.evaluation.record import record
from pressmark.experiment import as_dict, parse
from pressmark.files import read_json, write_json
from pressmark.generator.config import Config
from pressmark.generator.model import item_tokens
from pressmark.generator.samples import Samples
from pressmark.generator.train import GeneratorTask, assemble
from pressmark.sids.vocabulary import EOS, PAD
from pressmark.training import loop

ON_GPU = torch.cuda.is_available()

COUNTED = 32
"""Batches whose operations are counted."""


class Prefixes(Dataset):
    """Prefix samples as the tutorials have them: a dict of lists for each."""

    def __init__(self, samples: Samples, tokens: torch.Tensor) -> None:
        self.samples, self.tokens = samples, tokens

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, number: int) -> dict[str, list[int]]:
        place, length = int(self.samples.place[number]), int(self.samples.length[number])
        history = self.tokens[torch.from_numpy(self.samples.values[place - length : place])]
        return {
            "input_ids": [*history.flatten().tolist(), EOS],
            "labels": self.tokens[int(self.samples.values[place])].tolist(),
        }


def padded(features: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """A batch of `Prefixes`."""
    width = max(len(one["input_ids"]) for one in features)
    ids = torch.tensor([one["input_ids"] + [PAD] * (width - len(one["input_ids"])) for one in features])
    return {
        "input_ids": ids,
        "attention_mask": (torch.arange(width) < (ids != PAD).sum(1, keepdim=True)).long(),
        "labels": torch.tensor([one["labels"] for one in features]),
    }


class Curve:
    """Validations against seconds of training; the clock stands while one runs."""

    def __init__(self, validate: Callable[[], dict[str, float]]) -> None:
        self.validate, self.points = validate, list[dict[str, float]]()
        self.start()

    def start(self) -> None:
        """Sets the clock to zero, and the GPU's peak memory to what is in use."""
        self.started, self.aside = time.perf_counter(), 0.0
        if ON_GPU:
            torch.cuda.reset_peak_memory_stats()

    def seconds(self) -> float:
        """Seconds of training so far."""
        return time.perf_counter() - self.started - self.aside

    def point(self) -> dict[str, float]:
        """Validates now."""
        settle()
        seconds, began = self.seconds(), time.perf_counter()
        found = self.validate()
        self.aside += time.perf_counter() - began
        self.points.append({"seconds": seconds, **found})
        shown = "  ".join(f"{name} {value:.4f}" for name, value in found.items())
        print(f"  {seconds:7.0f} s  {shown}", flush=True)
        return found


def train_hf(run: Path, config: Config, seed: int, minutes: float, validate_every: int) -> dict[str, Any]:
    """The usual loop, for so many minutes."""
    plain = replace(config, model=replace(config.model, history_input="tokens", normalizer="full"))
    model, task = assemble(run, plain, seed)
    assert isinstance(task.samples, Samples)
    curve = Curve(lambda: validated(task, model))
    steps = len(task.samples) // plain.training.batch_size

    class Validate(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            curve.start()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            late = curve.seconds() > 60 * minutes
            if late or state.global_step % max(1, steps // validate_every) == 0:
                curve.point()
            control.should_training_stop = late

    with tempfile.TemporaryDirectory() as scratch:
        arguments = Seq2SeqTrainingArguments(
            output_dir=scratch,
            per_device_train_batch_size=plain.training.batch_size,
            num_train_epochs=1000,
            learning_rate=1e-3,
            warmup_steps=200,
            lr_scheduler_type="constant_with_warmup",
            train_sampling_strategy="group_by_length",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_steps=10**9,
            seed=seed,
            use_cpu=not ON_GPU,
            bf16=ON_GPU,
            # Samples are made in Python; a GPU would wait for them.
            dataloader_num_workers=4 if ON_GPU else 0,
        )
        data = Prefixes(task.samples, item_tokens(task.table))
        trainer = Seq2SeqTrainer(
            model=model, args=arguments, train_dataset=data, data_collator=padded, callbacks=[Validate()]
        )
        batches = list(trainer._get_train_sampler() or [])
        size = plain.training.batch_size
        starts = range(0, len(batches) - size + 1, max(1, len(batches) // size // COUNTED) * size)
        some = [padded([data[one] for one in batches[start : start + size]]) for start in starts]
        flops = flops_of(lambda: [model(**trainer._prepare_inputs(one)).loss.backward() for one in some])
        model.zero_grad()
        trainer.train()
        done = trainer.state.global_step * size
    return {**summary(curve, done), "gflop_a_sample": flops / 1e9 / (size * len(some))}


class Timed:
    """A task whose validations are points of a curve."""

    def __init__(self, task: GeneratorTask, curve: Curve) -> None:
        self._task, self._curve = task, curve

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def validate(self, model: torch.nn.Module) -> dict[str, float]:
        """A point."""
        return self._curve.point()


def train_pressmark(run: Path, config: Config, seed: int) -> dict[str, Any]:
    """The run's own configuration."""
    model, task = assemble(run, config, seed)
    curve = Curve(lambda: task.validate(model))
    plan, device = task.plan(0), torch.device("cuda" if ON_GPU else "cpu")
    torch.nn.Module.to(model, device)
    some = [task.collate(one, device) for one in plan[:: max(1, len(plan) // COUNTED)]]
    flops = flops_of(lambda: [task.loss(model.train(), batch)[0].backward() for batch in some])
    gflop = flops / 1e9 / sum(len(batch.labels) for batch in some)
    model.zero_grad()
    with tempfile.TemporaryDirectory() as scratch:
        curve.start()
        training = replace(config.training, mixed_precision="bf16" if ON_GPU else "no", log_with="")
        done = loop.fit(model, Timed(task, curve), training, Path(scratch), seed, "bench")
    a_step = task.samples.num_targets.sum() / len(plan)
    return {**summary(curve, round(done["step"] * a_step)), "gflop_a_sample": gflop}


def validated(task: GeneratorTask, model: T5ForConditionalGeneration) -> dict[str, float]:
    """Validates a model in training."""
    with torch.no_grad():
        found = task.validate(model.eval())
    model.train()
    return found


def flops_of(call: Callable[[], Any]) -> float:
    """Floating-point operations of the matrix products of a call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


def settle() -> None:
    """Waits until the GPU has done what it was given."""
    if ON_GPU:
        torch.cuda.synchronize()


def peak_gflops() -> float:
    """Rate of one large product in the format of training, the best of ten, in 1e9 operations a second."""
    rows, width = (8192, 8192) if ON_GPU else (2048, 1024)
    form: dict[str, Any] = {"device": "cuda", "dtype": torch.bfloat16} if ON_GPU else {}
    left, right = torch.randn(rows, width, **form), torch.randn(width, width, **form)
    best = float("inf")
    for _ in range(10):
        settle()
        began = time.perf_counter()
        torch.mm(left, right)
        settle()
        best = min(best, time.perf_counter() - began)
    return 2 * rows * width * width / best / 1e9


def peak_mib() -> float:
    """The most memory that training held: the GPU's tensors, or all that the process has."""
    if ON_GPU:
        return torch.cuda.max_memory_allocated() / 2**20
    return 1024 * (held_gib("VmHWM") or 0.0)


def summary(curve: Curve, num_samples: int) -> dict[str, Any]:
    """What a curve comes to."""
    seconds = curve.points[-1]["seconds"]
    return {
        "training_seconds": seconds,
        "samples": num_samples,
        "samples_per_second": num_samples / seconds,
        "best_ndcg_at_10": max(one["ndcg_at_10"] for one in curve.points),
        "peak_mib": peak_mib(),
        "curve": curve.points,
    }


def compare(rows: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Adds to each engine its utilisation, and how long it took to the best that both reached."""
    level = min(row["best_ndcg_at_10"] for row in rows.values())
    found = []
    for name, row in rows.items():
        reached = next(one["seconds"] for one in row["curve"] if one["ndcg_at_10"] >= level)
        rate = row["samples_per_second"] * row["gflop_a_sample"]
        found.append(
            {
                "engine": name,
                "ndcg_at_10_reached_by_both": level,
                "seconds_to_it": reached,
                "utilisation": rate / row["peak_gflops"],
                **row,
            }
        )
    hf = next(one["seconds_to_it"] for one in found if one["engine"] == "hf")
    return [{**one, "speedup": hf / one["seconds_to_it"]} for one in found]


EXTRA: dict[str, dict[str, Any]] = {
    "minutes": {"type": float, "default": 60.0, "help": "training time of hf"},
    "threads": {"type": int, "default": torch.get_num_threads(), "help": "CPU threads"},
    "validate_every": {"type": int, "default": 4, "help": "validations of hf an epoch"},
    "record": {"type": bool, "default": False, "help": "write eval/results/training-<dataset>.json"},
    "engine": {"type": str, "default": "", "help": "hf or pressmark alone, in this process"},
    "out": {"type": str, "default": "", "help": "where that one writes what it measured"},
}


def main() -> None:
    """Runs both engines, each in a process of its own, and compares them."""
    experiment, options = parse(None, extra=EXTRA)
    torch.set_num_threads(options["threads"])
    run, config, seed = experiment.run, experiment.generator, experiment.seed
    if options["engine"]:
        peak = peak_gflops()
        if options["engine"] == "hf":
            row = train_hf(run, config, seed, options["minutes"], options["validate_every"])
        else:
            row = train_pressmark(run, config, seed)
        write_json(Path(options["out"]), {**row, "peak_gflops": peak})
        return
    stages.train_tokenizer(experiment)
    rows = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("hf", "pressmark"):
            print(f"--- {name}", flush=True)
            out = Path(scratch) / f"{name}.json"
            own = ["--engine", name, "--out", str(out)]
            subprocess.run([sys.executable, __file__, *sys.argv[1:], *own], check=True)
            rows[name] = read_json(out)
    found = compare(rows)
    for row in found:
        print(json.dumps({key: value for key, value in row.items() if key != "curve"}, indent=1))
    if options["record"]:
        settings = {key: options[key] for key in ("minutes", "threads")} | as_dict(experiment)
        record("training", experiment.name, found, shlex.join(["python", *sys.argv]), settings, [seed])
        print(f"recorded: eval/results/training-{experiment.name}.json")


if __name__ == "__main__":
    guarded(main)
