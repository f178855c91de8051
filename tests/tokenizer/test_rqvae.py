from __future__ import annotations

import numpy as np
import pytest
import torch

from pressmark.tokenizer.quantizer import standardisation
from pressmark.tokenizer.rqvae import RQVAE, RQVAEConfig, quantization_loss, reconstruction_loss


def tiny() -> RQVAE:
    """Encoder and decoder are the identity; codebooks by hand. At rest: training would scale the latents."""
    model = RQVAE(RQVAEConfig(2, (2, 3), hidden_sizes=(), latent_dim=2))
    with torch.no_grad():
        for path in (model.encoder, model.decoder):
            path.linear.weight.copy_(torch.eye(2))
            path.linear.bias.zero_()
        model.books[0].copy_(torch.tensor([[-4.0, 0.0], [4.0, 0.0]]))
        model.books[1].copy_(torch.tensor([[0.0, -1.0], [0.0, 0.0], [0.5, 2.0]]))
    return model.eval()


VECTORS = torch.tensor([[4.6, 1.8], [-3.0, -0.9]])


def test_forward_by_hand() -> None:
    output = tiny()(VECTORS)
    assert output.codes.tolist() == [[1, 2], [0, 0]]
    torch.testing.assert_close(output.residuals[1], torch.tensor([[0.6, 1.8], [1.0, -0.9]]))
    torch.testing.assert_close(output.quantized[1], torch.tensor([[0.5, 2.0], [0.0, -1.0]]))
    torch.testing.assert_close(output.error, torch.tensor([[0.1, -0.2], [1.0, 0.1]]))
    torch.testing.assert_close(output.reconstruction, torch.tensor([[4.5, 2.0], [-4.0, -1.0]]))
    # To (-4, 0) and (4, 0); then from (0.6, 1.8) to (0, -1), (0, 0), (0.5, 2).
    torch.testing.assert_close(output.distances[0][0], torch.tensor([8.6**2 + 1.8**2, 0.6**2 + 1.8**2]))
    torch.testing.assert_close(
        output.distances[1][0], torch.tensor([0.36 + 7.84, 0.36 + 3.24, 0.01 + 0.04]), rtol=1e-4, atol=1e-5
    )
    assert float(output.mean_square) == pytest.approx((4.6**2 + 1.8**2 + 3.0**2 + 0.9**2) / 4)


def test_losses_by_hand() -> None:
    output = tiny()(VECTORS)
    # Errors (0.1, -0.2) and (1, 0.1), mean over two dimensions.
    torch.testing.assert_close(reconstruction_loss(output), torch.tensor([0.025, 0.505]))
    # Commitment: what both levels leave over. Entries: (0.6, 1.8) and (1, -0.9) at level 0, the errors at
    # level 1; mean over levels.
    committed = torch.tensor([0.025, 0.505])
    entries = (torch.tensor([(0.36 + 3.24) / 2, (1.0 + 0.81) / 2]) + committed) / 2
    torch.testing.assert_close(quantization_loss(output, 0.5, 0.0), 0.5 * committed)
    torch.testing.assert_close(quantization_loss(output, 0.5, 1.0), 0.5 * committed + entries)
    torch.testing.assert_close(quantization_loss(output, 0.0, 3.0), 3.0 * entries)


def test_reconstruction_goes_straight_through_to_the_encoder_and_not_to_the_codebooks() -> None:
    model = tiny()
    reconstruction_loss(model(VECTORS)).sum().backward()
    assert model.books[0].grad is None or not model.books[0].grad.any()
    assert model.encoder.linear.bias.grad is not None
    # d/dz of mean((z - x)^2) is the error itself: 2 * error / 2.
    torch.testing.assert_close(model.encoder.linear.bias.grad, torch.tensor([-1.1, 0.1]))


def test_quantization_moves_the_chosen_entries_and_the_encoder() -> None:
    model = tiny()
    quantization_loss(model(VECTORS), 0.25, 2.0).sum().backward()
    # 2 / 2 levels * 2 (c - r) / 2 for the chosen entry; an entry that nobody chose gets nothing.
    torch.testing.assert_close(model.books[0].grad, torch.tensor([[-1.0, 0.9], [-0.6, -1.8]]))
    torch.testing.assert_close(model.books[1].grad, torch.tensor([[-1.0, -0.1], [0.0, 0.0], [-0.1, 0.2]]))
    # What all levels leave over, weight 0.25.
    torch.testing.assert_close(model.encoder.linear.bias.grad, 0.25 * torch.tensor([0.1 + 1.0, -0.2 + 0.1]))


def test_without_weight_quantization_leaves_the_entries_alone() -> None:
    model = tiny()
    quantization_loss(model(VECTORS), 0.25, 0.0).sum().backward()
    assert all(book.grad is None for book in model.books)


def rotation(latent: np.ndarray, quantized: np.ndarray) -> np.ndarray:
    """The rotation in the plane of both that turns `latent`'s direction to `quantized`'s, from its angle."""
    e, q = latent / np.linalg.norm(latent), quantized / np.linalg.norm(quantized)
    across = q - (q @ e) * e
    sine, cosine = np.linalg.norm(across), q @ e
    a = across / sine
    plane = np.outer(e, e) + np.outer(a, a)
    return np.eye(len(e)) - plane + cosine * plane + sine * (np.outer(a, e) - np.outer(e, a))


def test_the_rotation_trick_is_a_rotation_and_a_stretch() -> None:
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    model = RQVAE(RQVAEConfig(5, (7, 7), hidden_sizes=(6,), latent_dim=4)).eval()
    model.start(rng.normal(size=(60, 5)).astype(np.float32), "shared", seed=0)
    model.through = "rotation"
    rows = torch.from_numpy(rng.normal(size=(9, 5)).astype(np.float32))
    output = model(rows)
    latents, seen = output.residuals[0], sum(output.quantized)
    with torch.no_grad():
        torch.testing.assert_close(output.reconstruction, model.decoder(seen))
    grad = torch.from_numpy(rng.normal(size=(9, 5)).astype(np.float32))
    (found,) = torch.autograd.grad(output.reconstruction, latents, grad)
    at_decoder = (grad @ model.decoder.linear.weight).detach().numpy()  # its MLP starts at zero
    for z, q, above, below in zip(
        latents.detach().numpy(), seen.detach().numpy(), at_decoder, found.numpy(), strict=True
    ):
        turn = rotation(z.astype(np.float64), q.astype(np.float64))
        np.testing.assert_allclose(turn @ turn.T, np.eye(4), atol=1e-6)
        stretch = np.linalg.norm(q) / np.linalg.norm(z)
        np.testing.assert_allclose(stretch * turn @ z, q, atol=1e-5)
        np.testing.assert_allclose(below, stretch * turn.T @ above, atol=1e-4)


@pytest.mark.parametrize("through", ["straight", "rotation"])
def test_gradients_stay_finite_for_latents_and_codes_of_zero_or_opposite(through: str) -> None:
    model = tiny()
    model.through = through
    with torch.no_grad():
        model.books[0].copy_(torch.tensor([[0.0, 0.0], [-1e-3, 0.0]]))
        model.books[1].zero_()
    reconstruction_loss(model(torch.tensor([[0.0, 0.0], [-1.0, 0.0], [1e-9, 0.0]]))).sum().backward()
    assert model.encoder.linear.weight.grad is not None
    assert model.encoder.linear.weight.grad.isfinite().all()


@pytest.mark.parametrize("through", ["straight", "rotation"])
def test_masking_shows_the_decoder_prefixes_and_changes_nothing_else(through: str) -> None:
    model = tiny()
    model.through = through
    rows = torch.cat([VECTORS, VECTORS])
    plain, masked = model(rows), model(rows, torch.tensor([1, 1, 2, 2]))
    # Row 0 is (4, 0) + (0.5, 2), row 1 (-4, 0) + (0, -1).
    expected = torch.tensor([[4.0, 0.0], [-4.0, 0.0], [4.5, 2.0], [-4.0, -1.0]])
    torch.testing.assert_close(masked.reconstruction, expected)
    for name in ("codes", "error"):
        assert torch.equal(getattr(masked, name), getattr(plain, name))
    for name in ("residuals", "quantized", "distances"):
        assert all(map(torch.equal, getattr(masked, name), getattr(plain, name)))


@pytest.mark.parametrize("scale", [0.01, 1.0, 300.0])
def test_training_scales_each_batch_of_latents_to_one(scale: float) -> None:
    model = tiny()
    model.rescale(torch.tensor(scale))
    at_rest = model(VECTORS)
    torch.testing.assert_close(at_rest.residuals[0], scale * VECTORS)
    training = model.train()(VECTORS)
    assert float(training.residuals[0].detach().square().mean()) == pytest.approx(1.0, rel=1e-5)
    mean_square = float(VECTORS.square().mean())
    torch.testing.assert_close(training.residuals[0], VECTORS / mean_square**0.5)
    assert float(training.mean_square) == pytest.approx(scale**2 * mean_square, rel=1e-5)
    assert not training.mean_square.requires_grad


def test_rescaling_changes_nothing_in_training() -> None:
    torch.manual_seed(0)
    model = RQVAE(RQVAEConfig(5, (4, 4), hidden_sizes=(6,), latent_dim=3))
    torch.nn.init.normal_(model.encoder.outputs()[1].weight)
    rows = torch.randn(20, 5)
    before = model(rows)
    model.rescale(torch.tensor(37.0))
    after = model(rows)
    assert torch.equal(before.codes, after.codes)
    torch.testing.assert_close(after.reconstruction, before.reconstruction)
    torch.testing.assert_close(after.mean_square, 37.0**2 * before.mean_square)


def test_settled_latents_have_a_mean_square_of_one_at_rest() -> None:
    torch.manual_seed(0)
    vectors = np.random.default_rng(0).normal(3.0, 2.0, size=(3000, 5)).astype(np.float32)
    model = RQVAE(RQVAEConfig(5, (4, 4), hidden_sizes=(6,), latent_dim=3)).eval()
    model.start(vectors, "shared", seed=0)
    torch.nn.init.normal_(model.encoder.outputs()[1].weight)
    assert abs(float(np.square(model.latents(vectors)).mean()) - 1) > 0.05
    angles = model.latents(vectors)[:, 0] / model.latents(vectors)[:, 1]
    model.fix_scale(vectors)
    assert float(np.square(model.latents(vectors)).mean()) == pytest.approx(1.0, rel=1e-4)
    np.testing.assert_allclose(model.latents(vectors)[:, 0] / model.latents(vectors)[:, 1], angles, rtol=1e-2)


def test_polish_moves_the_codebooks_to_the_means_of_the_latents() -> None:
    vectors = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    model = RQVAE(RQVAEConfig(4, (5, 5), hidden_sizes=(), latent_dim=4)).eval()
    model.start(vectors, "shared", seed=0)
    with torch.no_grad():
        for book in model.books:
            book.add_(0.3 * torch.randn(book.shape, generator=torch.Generator().manual_seed(0)))

    def error() -> float:
        return float(np.square(vectors - model.decode(model.encode(vectors))).mean())

    before = error()
    model.polish(vectors, seed=0, iterations=50, balance=(0.0,), start=0)
    assert error() < 0.97 * before
    residual = model.latents(vectors)
    for level, book in enumerate(model.codebooks()):
        codes = model.encode(vectors)[:, level]
        means = np.stack([residual[codes == code].mean(axis=0) for code in range(5)])
        np.testing.assert_allclose(book, means, atol=1e-4)
        residual = residual - book[codes]


def test_distances_carry_gradient_to_every_entry() -> None:
    model = tiny()
    sum(distance.sum() for distance in model(VECTORS).distances).backward()
    assert all((book.grad.abs().sum(dim=1) > 0).all() for book in model.books)


def test_start_is_residual_kmeans_on_principal_components() -> None:
    rng = np.random.default_rng(0)
    # Three directions of five carry everything.
    vectors = (rng.normal(size=(400, 3)) * [3, 2, 1] @ rng.normal(size=(3, 5)) + 7).astype(np.float32)
    model = RQVAE(RQVAEConfig(5, (4, 4), hidden_sizes=(8,), latent_dim=3))
    model.start(vectors, "shared", seed=0, iterations=200)
    latents = torch.from_numpy(model.latents(vectors))
    torch.testing.assert_close(latents.mean(dim=0), torch.zeros(3), atol=1e-4, rtol=0)
    with torch.no_grad():
        restored = model.decoder(latents) * model.scale + model.mean
    torch.testing.assert_close(restored, torch.from_numpy(vectors), atol=1e-3, rtol=0)
    entries = model.books[0][torch.from_numpy(model.encode(vectors)[:, 0])]
    torch.testing.assert_close(entries.mean(dim=0), torch.zeros(3), atol=1e-3, rtol=0)


@pytest.mark.parametrize("latent_dim", [2, 9])
def test_any_latent_width_and_level_sizes(latent_dim: int) -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32)
    model = RQVAE(RQVAEConfig(5, (7,), hidden_sizes=(), latent_dim=latent_dim))
    model.start(vectors, "each", seed=0)
    assert model.encode(vectors).shape == (50, 1)
    assert model(torch.from_numpy(vectors)).reconstruction.shape == (50, 5)


def test_every_buffer_is_saved() -> None:
    model = tiny()
    assert {name for name, _ in model.named_buffers()} <= set(model.state_dict())
    assert {"mean", "scale", "usage_0", "usage_1"} <= set(model.state_dict())


def test_autocast_does_not_touch_the_codes() -> None:
    model = tiny()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(VECTORS)
    assert all(distance.dtype == torch.float32 for distance in output.distances)
    assert output.reconstruction.dtype == torch.float32


def test_standardisation_by_hand() -> None:
    vectors = np.array([[0.0, 5.0, 10.0], [2.0, 5.0, 30.0]], np.float32)
    mean, scale = standardisation(vectors, "each")
    assert mean.tolist() == [1.0, 5.0, 20.0]
    assert scale.tolist() == [1.0, 1.0, 10.0]
    _, shared = standardisation(vectors, "shared")
    np.testing.assert_allclose(shared, np.sqrt((1 + 0 + 100) / 3), rtol=1e-6)
    assert standardisation(np.ones((3, 2), np.float32), "shared")[1].tolist() == [1.0, 1.0]
