from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pressmark.catalog.items import Catalog, write_catalog
from pressmark.catalog.taxonomy import Taxonomy, build_taxonomy
from pressmark.files import fingerprint, read_json, read_tensors, write_json, write_tensors
from pressmark.interactions.cases import Cases, Split
from pressmark.interactions.histories import Histories
from pressmark.interactions.split_files import write_split
from pressmark.sids.table import read_sids
from pressmark.tokenizer import task
from pressmark.tokenizer.config import AgreementConfig, Config, ContrastiveConfig
from pressmark.tokenizer.rqvae import RQVAE, RQVAEConfig
from pressmark.tokenizer.task import RQVAETask, revive
from pressmark.tokenizer.train import fit_quantizer, load_quantizer, train
from pressmark.training.config import TrainingConfig

# Tensors this small only wait for each other on several threads.
torch.set_num_threads(1)

NUM_ITEMS, WIDTH = 90, 8
PAIRS = Histories.from_lists([[one, (7 * one + 3) % NUM_ITEMS] for one in range(NUM_ITEMS)])


def category() -> list[tuple[tuple[str, ...], ...]]:
    """Three tops, two aisles each, three shelves each; the last items have two paths, or none."""
    tree = [((f"top{i % 3}", f"aisle{i % 6}", f"shelf{i % 18}"),) for i in range(NUM_ITEMS - 4)]
    return [*tree, (("top0", "aisle0"), ("top1", "aisle1", "shelf1")), (("top2",),), (), ()]


def content(seed: int = 0) -> np.ndarray:
    """Vectors that follow the tree, with one dead dimension and one pair of equal items."""
    rng = np.random.default_rng(seed)
    parts = [rng.normal(size=(count, WIDTH)) * size for count, size in ((3, 4.0), (6, 2.0), (18, 1.0))]
    vectors = sum(part[np.arange(NUM_ITEMS) % len(part)] for part in parts)
    vectors = (vectors + 0.5 * rng.normal(size=(NUM_ITEMS, WIDTH))).astype(np.float32)
    vectors[:, 3] = 2.0
    vectors[1] = vectors[0]
    return vectors


def config(**changes: object) -> Config:
    training = TrainingConfig(
        learning_rate=5e-3, batch_size=24, num_epochs=3, validate_every=3, mixed_precision="no", log_with=""
    )
    small = {"level_sizes": (6, 6, 6), "hidden_sizes": (16,), "latent_dim": 4, "training": training}
    return Config(**{**small, **changes})  # type: ignore[arg-type]


def tree() -> Taxonomy:
    return build_taxonomy(category())


def prepared(folder: Path, vectors: np.ndarray, cold: list[int]) -> Path:
    names = np.array([f"item{number:03}" for number in range(len(vectors))], object)
    blank = np.full(len(names), "", object)
    catalog = Catalog(names, blank, blank, tuple(category()), {})
    write_catalog(folder / "data" / "items.parquet", catalog)
    mask = np.isin(np.arange(len(names)), cold)
    nothing = np.empty(0, np.int64)
    nobody = Cases(nothing, np.empty(0, object), Histories.from_lists([]), nothing, np.empty(0, bool))
    history = Histories.from_lists([[2, 3, 4]])
    unknown = np.full(3, np.nan), np.arange(3)
    split = Split(history, np.array(["u"], object), *unknown, nobody, nobody, mask, ~mask, {})
    write_split(folder / "data", split, catalog)
    write_tensors(folder / "vectors.safetensors", {"vectors": vectors})
    pointer = {"path": "vectors.safetensors", "fingerprint": fingerprint(vectors)}
    write_json(folder / "data" / "vectors.json", pointer)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = prepared(tmp_path_factory.mktemp("run"), content(), cold=[5, 6, 7])
    train(folder, config(), seed=0)
    return folder


def item_ids() -> list[str]:
    return [f"item{number:03}" for number in range(NUM_ITEMS)]


def test_the_folder_holds_what_later_stages_read(run: Path) -> None:
    expected = {"config.json", "model.safetensors", "codebooks.safetensors", "sids.parquet", "metrics.json"}
    expected |= {"manifest.json", "drift.safetensors"}
    assert {one.name for one in (run / "tokenizer").iterdir()} == expected
    assert not list(run.glob(".*partial"))


def test_every_item_has_a_sid_of_its_own_cold_ones_too(run: Path) -> None:
    table = read_sids(run / "tokenizer" / "sids.parquet", item_ids())
    assert table.sids.shape == (NUM_ITEMS, 3)
    assert table.level_sizes == (6, 6, 6)
    assert len(np.unique(table.sids, axis=0)) == NUM_ITEMS


def test_the_loaded_quantizer_gives_the_saved_sids_but_for_relocated_items(run: Path) -> None:
    table = read_sids(run / "tokenizer" / "sids.parquet", item_ids())
    codes = load_quantizer(run / "tokenizer").encode(content())
    differ = (codes != table.sids).any(axis=1).mean()
    assert differ == pytest.approx(read_json(run / "tokenizer" / "metrics.json")["sids"]["share_relocated"])
    assert 0 < differ < 1


def test_codebooks_are_the_effective_ones_and_bind_the_table(run: Path) -> None:
    saved = read_tensors(run / "tokenizer" / "codebooks.safetensors")
    books = load_quantizer(run / "tokenizer").codebooks()
    assert sorted(saved) == ["level_0", "level_1", "level_2"]
    assert all((saved[f"level_{level}"].numpy() == book).all() for level, book in enumerate(books))
    table = read_sids(run / "tokenizer" / "sids.parquet", item_ids())
    assert table.codebook_fingerprint == fingerprint(*books)


def test_metrics_are_complete_json(run: Path) -> None:
    metrics = read_json(run / "tokenizer" / "metrics.json")
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert (metrics["num_items"], metrics["num_fitted"], metrics["kind"]) == (NUM_ITEMS, NUM_ITEMS - 3, "rqvae")
    assert metrics["quality"]["reconstruction_r2"] > 0.6
    assert metrics["sids"]["num_item_collisions_after"] == 0
    assert min(metrics["pairs_in_a_batch"][name]["least"] for name in ("same_leaf", "sibling", "unrelated")) > 0
    assert len(metrics["training"]["losses"]) == metrics["training"]["step"] > 0


def test_cold_items_teach_the_tokenizer_nothing(run: Path, tmp_path: Path) -> None:
    other = content()
    other[[5, 6, 7]] = content(seed=9)[[5, 6, 7]] * 3
    train(prepared(tmp_path, other, cold=[5, 6, 7]), config(), seed=0)
    ours, theirs = (read_tensors(one / "tokenizer" / "model.safetensors") for one in (run, tmp_path))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    ours, theirs = (read_sids(one / "tokenizer" / "sids.parquet", item_ids()).sids for one in (run, tmp_path))
    warm = np.delete(np.arange(NUM_ITEMS), [5, 6, 7])
    assert (ours[warm] == theirs[warm]).all()
    assert (ours[[5, 6, 7]] != theirs[[5, 6, 7]]).any()


def test_training_lowers_the_loss_and_moves_codebooks_by_seed(tmp_path: Path) -> None:
    items = np.arange(NUM_ITEMS)
    # Reconstruction and quantization alone: the units of the other terms shrink with what is left over.
    off = {"neighbour_weight": 0.0, "contrastive_weight": 0.0}
    longer = config(**off, training=replace(config().training, num_epochs=12))
    one, record = fit_quantizer(content(), tree(), items, longer, 0, tmp_path / "a")
    other, _ = fit_quantizer(content(), tree(), items, longer, 1, tmp_path / "b")
    assert np.mean(record["losses"][-10:]) < 0.85 * np.mean(record["losses"][:10])
    assert not np.array_equal(one.codebooks()[0], other.codebooks()[0])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"masking": 0.5, "behaviour_weight": 1.0, "gradient": "rotation", "polish_iterations": 2},
        {"codebooks": "gradient", "entropy_weight": 0.1, "contrastive": ContrastiveConfig(form="agreement")},
    ],
    ids=["default", "masking and behaviour", "by gradient"],
)
def test_a_killed_run_ends_where_it_would_have_ended(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = np.arange(NUM_ITEMS)
    # Revival nearly every step: usage counts and draws must come back exactly.
    training = replace(config().training, checkpoint_every=1e-9)
    tough = config(revive_every=2, revive_below=0.6, training=training, **options)
    whole, record = fit_quantizer(content(), tree(), items, tough, 0, tmp_path / "whole", PAIRS)
    real = task.revive

    def killed(*arguments: Any) -> int:
        if arguments[-1][1] == 8:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(task, "revive", killed)
    with pytest.raises(KeyboardInterrupt):
        fit_quantizer(content(), tree(), items, tough, 0, tmp_path / "cut", PAIRS)
    monkeypatch.setattr(task, "revive", real)
    # What stands in the global generator is not what resumes.
    torch.manual_seed(99)
    resumed, again = fit_quantizer(content(), tree(), items, tough, 0, tmp_path / "cut", PAIRS)
    assert again["losses"] == record["losses"]
    assert isinstance(whole, RQVAE)
    assert isinstance(resumed, RQVAE)
    ours, theirs = whole.state_dict(), resumed.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_suffix_and_kmeans_by_one_word(tmp_path: Path) -> None:
    folder = prepared(tmp_path, content(), cold=[])
    train(folder, config(kind="rqkmeans", collisions="suffix"), seed=0)
    table = read_sids(folder / "tokenizer" / "sids.parquet", item_ids())
    quantizer = load_quantizer(folder / "tokenizer")
    assert type(quantizer).__name__ == "RQKMeans"
    assert (table.sids[:, :3] == quantizer.encode(content())).all()
    assert len(np.unique(table.sids, axis=0)) == NUM_ITEMS
    assert table.level_sizes[:3] == (6, 6, 6)
    saved = read_tensors(folder / "tokenizer" / "codebooks.safetensors")
    assert saved["level_3"].shape == (table.level_sizes[3], WIDTH)
    assert not saved["level_3"].any()
    metrics = read_json(folder / "tokenizer" / "metrics.json")
    assert metrics["training"] == {}
    assert metrics["cold_reconstruction_r2"] is None


def test_a_vector_that_is_not_finite_names_the_item(tmp_path: Path) -> None:
    vectors = content()
    vectors[12, 0] = np.nan
    with pytest.raises(ValueError, match="'item012'"):
        train(prepared(tmp_path, vectors, cold=[]), config(), seed=0)


def test_fewer_training_items_than_codes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"5 training items cannot start 6 codes.*at most 5"):
        fit_quantizer(content(), tree(), np.arange(5), config(), 0, tmp_path)


@pytest.mark.parametrize("paths", [[()] * NUM_ITEMS, [(("all",),)] * NUM_ITEMS], ids=["none", "one"])
def test_a_catalog_without_a_tree_trains_without_the_contrastive_term(paths: list, tmp_path: Path) -> None:
    _, record = fit_quantizer(content(), build_taxonomy(paths), np.arange(NUM_ITEMS), config(), 0, tmp_path)
    assert np.isfinite(record["losses"]).all()


def test_items_all_alike_still_get_sids_of_their_own(tmp_path: Path) -> None:
    folder = prepared(tmp_path, np.ones((NUM_ITEMS, WIDTH), np.float32), cold=[])
    train(folder, config(), seed=0)
    table = read_sids(folder / "tokenizer" / "sids.parquet", item_ids())
    assert len(np.unique(table.sids, axis=0)) == NUM_ITEMS


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("level_sizes", ()),
        ("level_sizes", (6, 0)),
        ("latent_dim", 0),
        ("hidden_sizes", (8, 0)),
        ("contrastive_weight", -0.1),
        ("commitment_weight", float("nan")),
        ("neighbour_weight", float("inf")),
        ("behaviour_weight", -1.0),
        ("entropy_weight", -1.0),
        ("polish_iterations", -1),
        ("revive_below", -0.1),
        ("balance", ()),
        ("balance", (0.1, 1.1)),
        ("balance", (-0.1,)),
        ("masking", 1.5),
        ("masking", -0.5),
        ("revive_every", 0),
        ("kmeans_iterations", 0),
    ],
)
def test_wrong_options_are_refused_with_name_and_value(option: str, value: object) -> None:
    shown = list(value) if option == "level_sizes" and isinstance(value, tuple) else value
    with pytest.raises(ValueError, match=rf"{option}\W+(is )?{re.escape(str(shown))}"):
        config(**{option: value})


def test_related_is_the_taxonomys_similarity() -> None:
    taxonomy = tree()
    items = np.array([0, 18, 1, 86, 87, 88, 89, 0])
    one, _ = small_task()
    found, counts = one._related(torch.from_numpy(items))
    np.testing.assert_array_equal(found.numpy(), taxonomy.similarity(items[:, None], items))
    assert sum(counts.values()) == 8 * 7 / 2


def small_task(histories: Histories | None = None, **changes: object) -> tuple[RQVAETask, RQVAE]:
    changed = config(**changes)
    model = RQVAE(RQVAEConfig(WIDTH, (6, 6, 6), (16,), 4))
    model.start(content(), "shared", seed=0)
    return RQVAETask(content(), tree(), np.arange(NUM_ITEMS), changed, seed=0, histories=histories), model


@pytest.mark.parametrize(
    "weight", ["contrastive_weight", "neighbour_weight", "behaviour_weight", "entropy_weight"]
)
def test_every_term_reaches_codebooks_and_encoder(weight: str) -> None:
    off: dict[str, Any] = {"contrastive_weight": 0.0, "neighbour_weight": 0.0, "codebooks": "gradient"}
    off["agreement"] = AgreementConfig(3, temperature=10.0)

    def gradients(value: float) -> list[torch.Tensor]:
        torch.manual_seed(0)
        one, model = small_task(PAIRS, **{**off, weight: value})
        loss, _ = one.loss(model, one.collate(np.arange(NUM_ITEMS), torch.device("cpu")))
        loss.backward()
        return [*(book.grad for book in model.books), model.encoder.linear.weight.grad]

    without, with_term = gradients(0.0), gradients(1.0)
    assert all((a - b).abs().max() > 1e-4 for a, b in zip(without, with_term, strict=True))


def test_running_means_leave_no_gradient_on_the_codebooks(tmp_path: Path) -> None:
    items = np.arange(NUM_ITEMS)
    for codebooks, trained in (("ema", False), ("gradient", True)):
        model, _ = fit_quantizer(content(), tree(), items, config(codebooks=codebooks), 0, tmp_path / codebooks)
        assert isinstance(model, RQVAE)
        assert all(book.requires_grad == trained for book in model.books)


def test_weights_of_close_pairs_by_hand() -> None:
    histories = Histories.from_lists([[3, 0, 9], [9, 3]])
    shape = AgreementConfig(twin_cosine=0.95, sharpness=4.0, min_cosine=0.1)
    one, _ = small_task(histories, neighbour_weight=2.0, behaviour_weight=5.0, agreement=shape)
    # Items 0 and 1 are equal. 3-0, 0-9 and 9-3 follow each other.
    items = torch.tensor([0, 1, 3, 9, 40])
    unit = content()[items.numpy()].astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    raw = np.where(unit @ unit.T >= 0.1, np.exp(4.0 * np.minimum(unit @ unit.T - 0.95, 0)), 0.0)
    np.fill_diagonal(raw, 0.0)
    assert raw[0, 1] == pytest.approx(1.0)
    total = raw.sum(axis=1, keepdims=True)
    # Some have many twins, which share the weight; some have less than one.
    assert total.max() > 1 > total.min()
    np.testing.assert_allclose(one._close(items).numpy(), 2.0 * raw / np.maximum(total, 1.0), rtol=1e-4)
    met = np.zeros((5, 5))
    for a, b in ((0, 2), (0, 3), (2, 3)):
        met[[a, b], [b, a]] = 1.0
    assert (one._met(items).numpy() == met).all()
    # Twice in a batch is still no pair.
    assert one._close(torch.tensor([0, 0])).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_behaviour_without_interactions_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tokenizer.behaviour_weight is above 0.*no training interactions"):
        fit_quantizer(content(), tree(), np.arange(NUM_ITEMS), config(behaviour_weight=1.0), 0, tmp_path)


def test_interactions_of_cold_items_teach_nothing(tmp_path: Path) -> None:
    warm = np.delete(np.arange(NUM_ITEMS), [5, 6, 7])
    shown = [one for one in map(list, (PAIRS[row] for row in range(NUM_ITEMS))) if not {5, 6, 7} & set(one)]
    bought = config(behaviour_weight=2.0)

    def state(place: str, lists: list, **changes: object) -> dict[str, torch.Tensor]:
        histories = Histories.from_lists(lists)
        model, _ = fit_quantizer(
            content(), tree(), warm, replace(bought, **changes), 0, tmp_path / place, histories
        )
        assert isinstance(model, RQVAE)
        return model.state_dict()

    ours = state("a", shown)
    # The same with cold items at the ends, in between and alone.
    theirs = state("b", [[*shown[0], 5], [6, *shown[1]], [7, 6, 5], *shown[2:]])
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    # Interactions of warm items do teach, and only where they are asked for.
    other = state("c", shown[: len(shown) // 2])
    assert any(not torch.equal(ours[name], other[name]) for name in ours)
    one, same = (state(name, lists, behaviour_weight=0.0) for name, lists in (("d", shown), ("e", [])))
    assert all(torch.equal(one[name], same[name]) for name in one)


def test_behaviour_brings_products_bought_together_under_one_code(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(NUM_ITEMS, WIDTH)).astype(np.float32)
    pairs = Histories.from_lists(rng.permutation(NUM_ITEMS).reshape(-1, 2))

    def share_of_code(weight: float) -> float:
        asked = config(
            behaviour_weight=weight, contrastive_weight=0.0, neighbour_weight=0.0,
            training=replace(config().training, num_epochs=12),
        )  # fmt: skip
        items = np.arange(NUM_ITEMS)
        model, _ = fit_quantizer(vectors, tree(), items, asked, 0, tmp_path / str(weight), pairs)
        codes = model.encode(vectors)[:, 0]
        return float(np.mean([codes[a] == codes[b] for a, b in (pairs[row] for row in range(len(pairs)))]))

    assert share_of_code(20.0) > 1.5 * share_of_code(0.0)


def test_masking_shows_as_many_codes_as_drawn() -> None:
    one, _ = small_task(masking=0.5)
    torch.manual_seed(0)
    drawn = one._num_levels(6000, torch.device("cpu"))
    assert drawn is not None
    # Half sees all 3; of the other half a third each sees 1, 2, 3.
    share = torch.bincount(drawn, minlength=4) / 6000
    np.testing.assert_allclose(share, [0, 1 / 6, 1 / 6, 2 / 3], atol=0.025)
    assert small_task(masking=0.0)[0]._num_levels(5, torch.device("cpu")) is None


def test_masking_reaches_the_decoder() -> None:
    def reconstruction(masking: float) -> float:
        torch.manual_seed(0)
        one, model = small_task(masking=masking)
        _, log = one.loss(model, one.collate(one.plan(0)[0], torch.device("cpu")))
        return float(log["reconstruction"])

    assert reconstruction(1.0) > 1.1 * reconstruction(0.0)


def test_the_encoder_is_kept_at_its_scale_and_settles(tmp_path: Path) -> None:
    one, model = small_task()
    batch = one.collate(one.plan(0)[0], torch.device("cpu"))
    model.rescale(torch.tensor(3.0))
    before = float(model.eval()(batch.vectors).mean_square)
    one.loss(model.train(), batch)
    one.after_step(model, step=1)
    # A twentieth of the way in mean squares.
    after = float(model.eval()(batch.vectors).mean_square)
    assert after == pytest.approx(before / (1 + 0.05 * (before - 1)), rel=1e-4)
    warm = np.arange(10, NUM_ITEMS)
    for extra in ({}, {"polish_iterations": 5}):
        trained, _ = fit_quantizer(content(), tree(), warm, config(**extra), 0, tmp_path / str(len(extra)))
        assert float(np.square(trained.latents(content()[warm])).mean()) == pytest.approx(1.0, rel=1e-4)


def test_items_without_text_train(tmp_path: Path) -> None:
    vectors = content()
    vectors[[3, 30, 60]] = 0.0
    _, record = fit_quantizer(vectors, tree(), np.arange(NUM_ITEMS), config(), 0, tmp_path)
    assert np.isfinite(record["losses"]).all()


def test_revival_moves_dead_entries_to_residuals_and_leaves_the_others() -> None:
    _, model = small_task()
    with torch.no_grad():
        model.books[1][2] = 1000.0
        model.usage(1)[2] = 0.0
    before = [book.detach().clone() for book in model.books]
    vectors = torch.from_numpy(content())
    assert revive(model, vectors, np.arange(NUM_ITEMS), 0.1, (0, 7)) == 1
    residual = torch.from_numpy(model.latents(content()))
    residual = residual - before[0][torch.from_numpy(model.encode(content())[:, 0])]
    assert (residual - model.books[1][2]).square().sum(dim=1).min() < 1e-8
    assert float(model.usage(1)[2]) == pytest.approx(1 / 6)
    alive = torch.arange(6) != 2
    assert torch.equal(model.books[1][alive], before[1][alive])
    assert torch.equal(model.books[0], before[0])
    assert torch.equal(model.books[2], before[2])


def test_revival_depends_on_seed_and_step_alone() -> None:
    entries = []
    for step in (7, 7, 8):
        _, model = small_task()
        model.usage(0).zero_()
        torch.rand(3)  # the global generator plays no part
        revive(model, torch.from_numpy(content()), np.arange(NUM_ITEMS), 0.1, (0, step))
        entries.append(model.books[0].detach().clone())
    assert torch.equal(entries[0], entries[1])
    assert not torch.equal(entries[0], entries[2])


def test_usage_follows_the_codes_of_the_step() -> None:
    one, model = small_task(revive_below=0.0, balance=(0.0,))
    batch = one.collate(one.plan(0)[0], torch.device("cpu"))
    codes = model(batch.vectors).codes
    one.loss(model, batch)
    one.after_step(model, step=1)
    share = torch.bincount(codes[:, 0], minlength=6) / len(codes)
    # 24 rows of a window of 6 * 100.
    torch.testing.assert_close(model.usage(0), (1 / 6) + 0.04 * (share - 1 / 6))
