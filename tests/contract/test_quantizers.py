"""What every quantizer must do, on three well-separated heaps of vectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pressmark import files
from pressmark.tokenizer.quantizer import CHUNK, Quantizer
from pressmark.tokenizer.residual import quantize
from pressmark.tokenizer.rqkmeans import RQKMeans, RQKMeansConfig
from pressmark.tokenizer.rqvae import RQVAE, RQVAEConfig
from pressmark.tokenizer.train import load_quantizer

LEVEL_SIZES = (3, 4, 5)
WIDTH = 6


def heaps(num_items: int = 240, seed: int = 0) -> np.ndarray:
    """Item i belongs to heap i % 3."""
    rng = np.random.default_rng(seed)
    centres = 20.0 * np.eye(WIDTH, dtype=np.float32)[:3] + 5.0
    return (centres[np.arange(num_items) % 3] + rng.normal(size=(num_items, WIDTH))).astype(np.float32)


def rqkmeans(vectors: np.ndarray) -> Quantizer:
    model = RQKMeans(RQKMeansConfig(WIDTH, LEVEL_SIZES))
    model.fit(vectors, "shared", seed=0)
    return model


def rqvae(vectors: np.ndarray) -> Quantizer:
    model = RQVAE(RQVAEConfig(WIDTH, LEVEL_SIZES, hidden_sizes=(8,), latent_dim=4))
    model.start(vectors, "shared", seed=0)
    return model.eval()


Build = Callable[[np.ndarray], Quantizer]


@pytest.fixture(params=[rqkmeans, rqvae], ids=["rqkmeans", "rqvae"])
def build(request: pytest.FixtureRequest) -> Build:
    return request.param


def test_codes_have_the_promised_shape_and_range(build: Build) -> None:
    vectors = heaps()
    quantizer = build(vectors)
    assert isinstance(quantizer, Quantizer)
    assert (quantizer.input_dim, quantizer.level_sizes) == (WIDTH, LEVEL_SIZES)
    codes = quantizer.encode(vectors)
    assert codes.dtype == np.int64
    assert codes.shape == (240, 3)
    assert (codes >= 0).all()
    assert (codes < LEVEL_SIZES).all()


def test_first_code_is_the_heap(build: Build) -> None:
    vectors = heaps()
    first = build(vectors).encode(vectors)[:, 0]
    assert len({first[0], first[1], first[2]}) == 3
    assert (first == first[np.arange(240) % 3]).all()


def test_unseen_vectors_fall_into_their_heap(build: Build) -> None:
    quantizer = build(heaps())
    assert (quantizer.encode(heaps(30, seed=1))[:, 0] == quantizer.encode(heaps())[:30, 0]).all()


def test_decoding_restores_units_and_better_with_all_levels(build: Build) -> None:
    vectors = heaps()
    quantizer = build(vectors)
    decoded = quantizer.decode(quantizer.encode(vectors))
    assert decoded.dtype == np.float32
    assert np.square(decoded - vectors).sum() < 0.1 * np.square(vectors - vectors.mean(axis=0)).sum()


def test_codes_are_the_greedy_nearest_entries_of_the_effective_codebooks(build: Build) -> None:
    import torch

    vectors = heaps()
    quantizer = build(vectors)
    books = [torch.from_numpy(book) for book in quantizer.codebooks()]
    expected = quantize(torch.from_numpy(quantizer.latents(vectors)), books).numpy()
    assert (quantizer.encode(vectors) == expected).all()


def test_codes_do_not_depend_on_the_batch(build: Build) -> None:
    vectors = heaps()
    quantizer = build(vectors)
    whole = quantizer.encode(vectors)
    for size in (1, 7, 240):
        parts = [quantizer.encode(vectors[start : start + size]) for start in range(0, 42, size)]
        assert (np.concatenate(parts)[:42] == whole[:42]).all()


def test_codes_do_not_depend_on_the_threads_or_where_the_vectors_stand(build: Build, tmp_path: Path) -> None:
    import torch

    vectors = heaps(5 * CHUNK + 3)
    quantizer = build(vectors[:240])
    np.save(tmp_path / "vectors.npy", vectors)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone, latents = quantizer.encode(vectors), quantizer.latents(vectors)
        torch.set_num_threads(4)
        mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
        assert (quantizer.encode(mapped) == alone).all()
        assert (quantizer.latents(vectors[1:]) == latents[1:]).all()
        assert torch.get_num_threads() == 4
        vectors[[2 * CHUNK + 1, 4 * CHUNK]] = np.nan
        with pytest.raises(ValueError, match=f"item_index {2 * CHUNK + 1} "):
            quantizer.encode(vectors)
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(threads)


def test_half_precision_vectors_that_sum_to_infinity_are_finite(build: Build) -> None:
    quantizer = build(heaps())
    assert (quantizer.encode(np.full((2, WIDTH), 60_000, np.float16)) >= 0).all()


def test_saving_and_loading_gives_the_same_codes(build: Build, tmp_path: Path) -> None:
    vectors = heaps()
    quantizer = build(vectors)
    quantizer.save_pretrained(tmp_path)
    assert {one.name for one in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    loaded = load_quantizer(tmp_path)
    assert type(loaded) is type(quantizer)
    assert loaded.level_sizes == LEVEL_SIZES
    assert (loaded.encode(vectors) == quantizer.encode(vectors)).all()
    assert (loaded.decode(quantizer.encode(vectors)) == quantizer.decode(quantizer.encode(vectors))).all()


def test_the_same_seed_fits_the_same_codebooks(build: Build) -> None:
    one, other = build(heaps()), build(heaps())
    assert all((a == b).all() for a, b in zip(one.codebooks(), other.codebooks(), strict=True))


def test_no_item_at_all_is_no_error(build: Build) -> None:
    assert build(heaps()).encode(np.empty((0, WIDTH), np.float32)).shape == (0, 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_is_named(build: Build, bad: float) -> None:
    quantizer = build(heaps())
    vectors = heaps()
    vectors[17, 2] = bad
    with pytest.raises(ValueError, match="item_index 17"):
        quantizer.encode(vectors)
    with pytest.raises(ValueError, match="item_index 17"):
        build(vectors)


def test_vectors_of_another_width_are_refused(build: Build) -> None:
    with pytest.raises(ValueError, match=r"\(240, 5\).*\(items, 6\)"):
        build(heaps()).encode(heaps()[:, :5])


def test_codes_outside_a_level_are_refused(build: Build) -> None:
    quantizer = build(heaps())
    with pytest.raises(ValueError, match="code 4 of row 1 at level 1"):
        quantizer.decode(np.array([[0, 0, 0], [0, 4, 0]]))
    with pytest.raises(ValueError, match="3 levels"):
        quantizer.decode(np.array([[0, 0]]))


def test_dead_dimensions_do_no_harm(build: Build) -> None:
    vectors = heaps()
    vectors[:, 4] = 7.0
    vectors[:, 5] = 1e-9 * np.arange(240)
    quantizer = build(vectors)
    decoded = quantizer.decode(quantizer.encode(vectors))
    assert np.isfinite(decoded).all()
    np.testing.assert_allclose(decoded[:, 4], 7.0, atol=1e-4)


def test_items_all_alike_share_one_sid(build: Build) -> None:
    vectors = np.ones((20, WIDTH), np.float32)
    codes = build(vectors).encode(vectors)
    assert (codes == codes[0]).all()


def test_too_few_items_for_the_codes(build: Build) -> None:
    with pytest.raises(ValueError, match="2 items cannot start 3 codes"):
        build(heaps(2))


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no tokenizer folder"):
        load_quantizer(tmp_path)
    files.write_json(tmp_path / "config.json", {"model_type": "t5"})
    with pytest.raises(ValueError, match="model_type is 't5'"):
        load_quantizer(tmp_path)
