"""Speed of trie-constrained decoding beside Hugging Face's `generate` and the machine's own limit.

    python eval/bench_decoding.py [--quick] [--out FILE] [--record true] [--device cuda]

Engines, a model of TIGER's size with random weights, histories of 20 items, every call encoder included:
`pressmark` (this project's beam search), `hf_dict` (generate with a dict of prefixes), `hf_mask` (generate with
`TrieLogitsProcessor`), `hf_free` (generate without any constraint) and `gemm_limit`: the matrix products of
the `pressmark` call, recorded as it runs, with the same weights, shapes, dtype and threads, into outputs
that stand ready, and nothing else. Hugging Face's engines compute in fp32. Engines of a cell take turns;
figures are medians of the rounds.

`constraint_share` is what the trie costs: the search in the trie over the same search that takes the best of
the level's codes, less one; in turns, median of the pairs and the upper end of its 95 % interval by bootstrap.
`filter_share` is the same under a filter that keeps a tenth of the catalog. Where few codes may follow, the
search in the trie has less to choose from than the one without, and that is in the figure too.

Every catalog, uniform and skewed, gets the first dtype and the first two batches; the one that Hugging Face's
engines run on (the largest they can, uniform) every dtype at those, and the first dtype at every batch.

`peak_mib` is the most memory that a call holds at one time beyond the weights, its answer included.

On a GPU (`--device cuda`) `pressmark` in bf16 is `fused`, recorded as one CUDA graph, and so is `gemm_limit`,
of the products of the plain search. Hugging Face's engines compute in the cell's dtype there. `launch_floor` is
a graph of as many kernels that do nothing.
"""

import argparse
import copy
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from tqdm import tqdm
from transformers import LogitsProcessorList, T5ForConditionalGeneration

from pressmark import files
from pressmark.cli import guarded, truth
from pressmark.evaluation.memory import peak_mib
from pressmark.evaluation.record import record
from pressmark.generator.beam_search import Beams, Masks, SearchTrie, search
from pressmark.generator.config import ModelConfig
from pressmark.generator.hf_generate import TrieLogitsProcessor
from pressmark.generator.model import build_model, history_tokens, item_tokens
from pressmark.generator.t5_decoder import T5Decoder
from pressmark.sids.edge_mask import edge_mask
from pressmark.sids.living_trie import LivingTrie
from pressmark.sids.table import SidTable
from pressmark.sids.trie import Trie, build_trie, load_trie
from pressmark.sids.vocabulary import PAD, Vocabulary

SIZES = (256, 256, 256, 256)
HISTORY = 20
HF_MOST_ITEMS = 100_000
"""Beyond this a dict of prefixes is not tried: its size is gigabytes, its time a step the same."""
HF_MOST_BEAMS = 1_600
"""Beyond this its caches are gigabytes, and a round takes minutes."""
Row = dict[str, Any]


def sids_of(num_items: int, skewed: bool) -> np.ndarray:
    """(N, 4) int64 distinct SIDs; skewed ones crowd a few codes at every level, as a popularity does."""
    rng = np.random.default_rng(num_items + skewed)
    found = np.empty((0, 4), np.int64)
    while len(found) < num_items:
        drawn = rng.random((num_items + num_items // 4 + 100, 4))
        codes = (256 * (drawn**3 if skewed else drawn)).astype(np.int64)
        keys = np.unique(np.concatenate([found, codes]) @ 256 ** np.arange(3, -1, -1))
        found = np.stack([keys // 256**power % 256 for power in (3, 2, 1, 0)], axis=1)
    return found[np.sort(rng.choice(len(found), num_items, replace=False))]


def model_of() -> T5ForConditionalGeneration:
    """TIGER's size, random weights whose scores are not flat."""
    torch.manual_seed(0)
    model = build_model(
        ModelConfig(history_input="tokens", normalizer="full"),
        SidTable(np.zeros((1, 4), np.int64), SIZES, "bench"),
        HISTORY,
    )
    for norm in (model.encoder.final_layer_norm, model.decoder.final_layer_norm):
        norm.weight.data.uniform_(1.0, 3.0)
    return model.eval()


@dataclass
class Cell:
    """One size of work: who is asked for what."""

    model: T5ForConditionalGeneration
    trie: Trie
    sids: np.ndarray
    batch: int
    beam: int
    dtype: torch.dtype
    device: str

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.batch)
        items = torch.from_numpy(rng.integers(0, len(self.sids), (self.batch, HISTORY)))
        table = SidTable(self.sids, SIZES, "bench")
        lengths = torch.full((self.batch,), HISTORY)
        self.input_ids, self.attention_mask = (
            one.to(self.device)
            for one in history_tokens(item_tokens(table), items, lengths, "tokens", Vocabulary(SIZES).size)
        )
        self.decoder = T5Decoder(self.model, self.dtype)
        self.search: Callable[..., Beams] = search
        self.shown = SearchTrie.of(self.trie, self.device)
        self.hf_model = self.model
        if self.device == "cuda":
            self.hf_model = cast(Any, copy.deepcopy(self.model)).to(self.dtype)
            if self.dtype == torch.bfloat16:
                from pressmark.generator import fused

                self.decoder, self.search = fused.FusedDecoder(self.model, self.dtype), fused.search

    @torch.inference_mode()
    def pressmark(self, masks: Masks | None = None, trie: SearchTrie | None = None) -> None:
        """Pressmark's search, encoder included."""
        states = self.decoder.encode(self.input_ids, self.attention_mask)
        self.search(self.decoder, states, self.attention_mask, trie or self.shown, self.beam, masks)

    def free(self) -> None:
        """The same search, in no trie."""
        self.pressmark(trie=FreeTrie.like(self.shown))

    def plain(self) -> None:
        """The search whose products are the limit."""
        decoder = T5Decoder(self.model, self.dtype)
        states = decoder.encode(self.input_ids, self.attention_mask)
        search(decoder, states, self.attention_mask, self.shown, self.beam)

    def hf(self, **options: Any) -> None:
        """Hugging Face's beam search; on a CPU in fp32 whatever the cell's dtype: what people run today."""
        with torch.inference_mode():
            cast(Any, self.hf_model).generate(
                input_ids=self.input_ids,
                attention_mask=self.attention_mask,
                num_beams=self.beam,
                num_return_sequences=self.beam,
                length_penalty=0.0,
                max_new_tokens=len(SIZES),
                early_stopping=False,
                **options,
            )

    def engines(self, dict_of: Callable[[], Any] | None) -> dict[str, Callable[[], None]]:
        """Engine name -> call."""
        found = {"pressmark": self.recorded(self.pressmark), "gemm_limit": self.recorded(products(self))}
        if self.device == "cuda":
            found["launch_floor"] = self.recorded(nothing(num_kernels(self.pressmark)))
        if dict_of is not None:
            allowed = dict_of()
            processor = LogitsProcessorList([TrieLogitsProcessor(self.trie)])
            found |= {
                "hf_dict": lambda: self.hf(prefix_allowed_tokens_fn=allowed),
                "hf_mask": lambda: self.hf(logits_processor=processor),
                "hf_free": self.hf,
            }
        return found

    def recorded(self, call: Callable[[], None]) -> Callable[[], None]:
        """The call as one CUDA graph where it waits for nothing: on a GPU, in bf16."""
        if self.device != "cuda" or self.dtype != torch.bfloat16:
            return call
        from pressmark.generator import fused

        return fused.record(call)[0].replay


def num_kernels(call: Callable[[], None]) -> int:
    """Kernels that a call launches, copies among them."""
    call()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        call()
        torch.cuda.synchronize()
    return sum(one.device_type == torch.autograd.DeviceType.CUDA for one in seen.events())


def nothing(times: int) -> Callable[[], None]:
    """Launches so many kernels that return at once."""

    def run() -> None:
        for _ in range(times):
            torch.cuda._sleep(0)

    return run


@cache
def codes_like(shape: torch.Size, device: torch.device) -> Tensor:
    """(B, M, K) int32: all codes of a level behind each beam."""
    return torch.arange(shape[-1], dtype=torch.int32, device=device).expand(shape).contiguous()


class FreeTrie(SearchTrie):
    """No trie at all: every code may follow every other. An edge is a code."""

    constrains = False

    @classmethod
    def like(cls, trie: SearchTrie) -> "FreeTrie":
        """Of as many codes."""
        codes = tuple(torch.arange(size, dtype=torch.uint8).to(trie.edge_code[0].device) for size in SIZES)
        return cls(**vars(trie) | {"width": SIZES, "edge_code": codes, "copies": ()})

    def offers(
        self, level: int, node: Tensor, score: Tensor, scores: Tensor, *rest: Any, **more: Any
    ) -> tuple[Tensor, Tensor]:
        """All of them."""
        return scores + score[..., None], codes_like(scores.shape, scores.device)


def products(cell: Cell) -> Callable[[], None]:
    """The matrix products of a `pressmark` call, ready to be run again."""
    with Recorder() as seen:
        cell.plain()
    calls: list[tuple[Callable[..., Any], Tensor, Tensor, Tensor]] = []
    kept: dict[tuple[Any, ...], Tensor] = {}

    def like(one: Tensor, what: str) -> Tensor:
        # Weights are the model's own; activations of one shape share a buffer, which only helps the limit.
        key = (what, tuple(one.shape), one.stride())
        if key not in kept:
            kept[key] = torch.empty_strided(one.shape, one.stride(), dtype=one.dtype, device=one.device)
            kept[key].normal_()
        return kept[key]

    for left, right, weight in seen.products:
        right = right if weight else like(right, "right")
        shape = (*left.shape[:-1], right.shape[-1])
        out = kept.setdefault(("out", shape), torch.empty(shape, dtype=left.dtype, device=left.device))
        calls.append((torch.bmm if left.ndim == 3 else torch.mm, like(left, "left"), right, out))

    @torch.inference_mode()
    def run() -> None:
        for product, left, right, out in calls:
            product(left, right, out=out)

    return run


class Recorder(TorchDispatchMode):
    """Notes the factors of every matrix product, those of attention too."""

    def __init__(self) -> None:
        super().__init__()
        self.products: list[tuple[Tensor, Tensor, bool]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in {"mm", "bmm"}:
            self._note(args[0], args[1])
        elif name in {"addmm", "addmm_", "baddbmm"}:
            self._note(args[1], args[2])
        elif name == "linear":
            self._note(args[0].flatten(0, -2), args[1].T)
        elif name.startswith("_scaled_dot_product") or name == "scaled_dot_product_attention":
            query, key, value = args[:3]
            left = query.reshape(-1, *query.shape[2:])
            self._note(left, key.reshape(-1, *key.shape[2:]).mT)
            weights = left.new_empty(*left.shape[:2], key.shape[2])
            self._note(weights, value.reshape(-1, *value.shape[2:]))
        elif "matmul" in name:
            raise RuntimeError(f"{name} is a product that this recorder does not know.")
        return func(*args, **(kwargs or {}))

    def _note(self, left: Tensor, right: Tensor) -> None:
        # A weight has no batch in it: it is the same tensor at every call.
        self.products.append((left, right, right.ndim == 2))


def dict_of_prefixes(sids: np.ndarray) -> Callable[[int, Tensor], list[int]]:
    """HF's usual constraint: prefix -> tokens that may follow."""
    children: dict[tuple[int, ...], set[int]] = {}
    for sid in Vocabulary(SIZES).sid_tokens(sids).tolist():
        for level in range(len(SIZES)):
            children.setdefault(tuple(sid[:level]), set()).add(sid[level])
    lists = {prefix: sorted(after) for prefix, after in children.items()}
    return lambda _, sent: lists.get(tuple(sent[1:].tolist()), [PAD])


def seconds(call: Callable[[], None], device: str) -> float:
    """How long a call takes, until the device is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def in_turns(
    engines: dict[str, Callable[[], None]], rounds: int, device: str, at_least: float = 0.0
) -> dict[str, np.ndarray]:
    """Seconds of each engine in each round; one round before, to warm up. Short calls get more rounds."""
    times: dict[str, list[float]] = {name: [] for name in engines}
    for call in engines.values():
        call()
    start = time.perf_counter()
    while len(times["pressmark"]) < rounds or (
        time.perf_counter() - start < at_least and len(times["pressmark"]) < 20 * rounds
    ):
        for name, call in engines.items():
            times[name].append(seconds(call, device))
    return {name: np.array(one) for name, one in times.items()}


def overhead(with_it: np.ndarray, without: np.ndarray) -> tuple[float, float]:
    """Median of the pairs' ratios less one, and the upper end of its two-sided 95 % interval."""
    ratio = with_it / without
    drawn = np.random.default_rng(0).integers(0, len(ratio), (2000, len(ratio)))
    medians = np.median(ratio[drawn], axis=1)
    return float(np.median(ratio) - 1), float(np.quantile(medians, 0.975) - 1)


def cell_rows(cell: Cell, about: Row, rounds: int, with_hf: bool, pairs: int) -> Iterator[Row]:
    """All engines of one cell, then the price of the trie and of a filter that keeps a tenth."""
    engines = cell.engines((lambda: dict_of_prefixes(cell.sids)) if with_hf else None)
    times = in_turns(engines, rounds, cell.device, at_least=2.0 if cell.device == "cpu" else 0.4)
    # Of a graph the memory is the recording's: what counts is what the call itself would hold.
    held = {name: call for name, call in engines.items() if name.startswith("hf")} | {
        "pressmark": cell.pressmark
    }
    peak = {name: peak_mib(call, cell.device) for name, call in held.items()}
    median = {name: float(np.median(one)) for name, one in times.items()}
    allowed = np.random.default_rng(0).random(len(cell.sids)) < 0.1
    masks = Masks.of([edge_mask(cell.trie, allowed)], np.zeros(cell.batch, np.int64), cell.device)
    searches = {"pressmark": cell.pressmark, "free": cell.free, "filtered": lambda: cell.pressmark(masks)}
    priced = in_turns(
        {name: cell.recorded(call) for name, call in searches.items()},
        pairs,
        cell.device,
    )
    share, share_high = overhead(priced["pressmark"], priced["free"])
    filtered, filtered_high = overhead(priced["filtered"], priced["free"])
    # Ratios of neighbours in time, not of medians: the machine's pace drifts.
    for name, one in median.items():
        row = about | {"engine": name, "users_per_second": cell.batch / one, "rounds": len(times[name])}
        if name.startswith("hf") and cell.device == "cpu":
            row["dtype"], row["beside"] = "fp32", about["dtype"]
        if "hf_dict" in median:
            row["speedup_over_hf_dict"] = float(np.median(times["hf_dict"] / times[name]))
            if name in peak:
                row["peak_over_hf_dict"] = peak[name] / peak["hf_dict"]
        row["time_over_gemm_limit"] = float(np.median(times[name] / times["gemm_limit"]))
        if name in peak:
            row["peak_mib"] = peak[name]
        if name == "pressmark":
            row |= {
                "constraint_share": share,
                "constraint_share_high": share_high,
                "filter_share": filtered,
                "filter_share_high": filtered_high,
                "pairs": len(priced["free"]),
            }
        yield row


def index_row(sids: np.ndarray, about: Row, folder: Path) -> Row:
    """Size and speed of the index: build, save, open, insert, withdraw, filter."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    row = about | {"engine": "index"}
    small = sids.astype(np.uint8)
    with clock(row, "build_seconds"):
        trie = build_trie(small, SIZES)
    row["bytes_per_item"] = trie.nbytes / len(sids)
    row["bytes_per_item_with_ids"] = (trie.nbytes + trie.item_order.nbytes) / len(sids)
    path = folder / "trie.safetensors"
    with clock(row, "save_seconds"):
        trie.save(path)
    with clock(row, "open_seconds"):
        load_trie(path)
    path.unlink()
    with clock(row, "filter_seconds"):
        edge_mask(trie, np.random.default_rng(0).random(len(sids)) < 0.1)
    living = LivingTrie(trie)
    rng = np.random.default_rng(1)
    new = rng.integers(0, 256, (2000, 4))
    with clock(row, "insert_seconds"):
        for number in range(len(new)):
            living.insert(np.array([len(sids) + number]), new[[number]])
    with clock(row, "fold_seconds"):
        living.fresh()
    gone = rng.choice(len(sids), min(2000, len(sids) // 2), replace=False)
    with clock(row, "withdraw_seconds"):
        for item in gone:
            living.withdraw(np.array([item]), sids[[item]])
    row["insert_milliseconds"] = row.pop("insert_seconds") / len(new) * 1e3
    row["withdraw_milliseconds"] = row.pop("withdraw_seconds") / len(gone) * 1e3
    torch.set_num_threads(threads)
    return row


@contextmanager
def clock(row: Row, name: str) -> Iterator[None]:
    """Seconds of a block into a row."""
    start = time.perf_counter()
    yield
    row[name] = time.perf_counter() - start


def main() -> None:
    """Measures the cells asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="100,000 items, batch 1 and 32, fp32, 5 minutes")
    parser.add_argument("--items", type=int, nargs="*", help="catalog sizes")
    parser.add_argument("--batches", type=int, nargs="*", help="users at a time")
    parser.add_argument("--beams", type=int, nargs="*", help="beams a user")
    parser.add_argument("--dtypes", nargs="*", choices=["fp32", "bf16"], help="of weights and activations")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds a cell, at least (default: 3)")
    parser.add_argument("--pairs", type=int, default=15, help="pairs for the price of the trie (default: 15)")
    parser.add_argument("--no-hf", action="store_true", help="leave Hugging Face's engines out")
    parser.add_argument("--out", type=Path, help="JSON of the rows")
    parser.add_argument(
        "--record", type=truth, default=False, help="true: write eval/results/decoding-bench[-gpu].json"
    )
    options = parser.parse_args()
    sizes = options.items or ([100_000] if options.quick else [10_000, 100_000, 1_000_000, 10_000_000])
    on_gpu = options.device == "cuda"
    batches = options.batches or ([1, 32] if options.quick else [1, 32, 128, 512, 1024][: 5 if on_gpu else 3])
    beams = options.beams or [10, 50]
    dtypes = options.dtypes or (["bf16"] if on_gpu else ["fp32"] if options.quick else ["fp32", "bf16"])
    torch.set_num_threads(options.threads)
    model = model_of().to(options.device)
    rows: list[Row] = []
    shapes = [(size, skewed) for size in sizes for skewed in ((False,) if options.quick else (False, True))]
    beside_hf = max((one for one in sizes if one <= HF_MOST_ITEMS), default=sizes[0]), False
    cells = {
        shape: [
            (dtype, batch, beam)
            for dtype in (dtypes if shape == beside_hf else dtypes[:1])
            for batch in (batches if on_gpu or (shape == beside_hf and dtype == dtypes[0]) else batches[:2])
            for beam in beams
        ]
        for shape in shapes
    }
    folder = (options.out or Path("eval/results/decoding-bench.json")).parent
    with tqdm(total=sum(map(len, cells.values())), desc="decoding", unit="cell", disable=None) as bar:
        for size, skewed in shapes:
            sids = sids_of(size, skewed)
            about: Row = {"device": options.device, "num_items": size, "skewed": skewed}
            rows.append(index_row(sids, about, folder))
            trie = build_trie(sids, SIZES)
            for dtype, batch, beam in cells[size, skewed]:
                kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
                cell = Cell(model, trie, sids, batch, beam, kind, options.device)
                own = about | {"dtype": dtype, "batch": batch, "beam": beam}
                fits = size <= HF_MOST_ITEMS and batch * beam <= HF_MOST_BEAMS
                with_hf = not options.no_hf and fits and (size, skewed) == beside_hf
                rows += cell_rows(cell, own, options.rounds, with_hf, options.pairs)
                bar.update()
                if options.out:
                    files.write_json(options.out, {"rows": rows})
    print(table(rows))
    if options.record:
        settings = vars(options) | {"out": str(options.out), "level_sizes": SIZES, "history": HISTORY}
        record(
            "decoding",
            "bench-gpu" if on_gpu else "bench",
            rows,
            shlex.join(["python", *sys.argv]),
            settings,
            [0],
        )
        print(f"recorded: eval/results/decoding-bench{'-gpu' if on_gpu else ''}.json")


def table(rows: list[Row]) -> str:
    """A line a row."""
    lines = []
    for row in rows:
        if row["engine"] == "index":
            what = ", ".join(f"{name} {value:.3g}" for name, value in row.items() if isinstance(value, float))
            lines.append(f"index of {row['num_items']:,}{' skewed' if row['skewed'] else ''}: {what}")
            continue
        line = f"{row['num_items']:>10,}{' s' if row['skewed'] else '  '} {row['dtype']} {row['batch']:>4} "
        line += f"{row['beam']:>3} {row['engine']:12} {row['users_per_second']:>10.1f} users/s"
        line += f"  x{row['speedup_over_hf_dict']:.2f} HF" if "speedup_over_hf_dict" in row else ""
        line += f"  {row['time_over_gemm_limit']:.2f} of the limit"
        line += f"  {row['peak_mib']:,.0f} MiB" if "peak_mib" in row else ""
        if "constraint_share" in row:
            line += f"  trie {row['constraint_share']:+.1%} (<= {row['constraint_share_high']:+.1%})"
            line += f"  filter {row['filter_share']:+.1%} (<= {row['filter_share_high']:+.1%})"
        lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    guarded(main)
