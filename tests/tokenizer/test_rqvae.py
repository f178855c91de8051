from __future__ import annotations

import numpy as np
import pytest
import torch

from pressmark.tokenizer.quantizer import standardisation
from pressmark.tokenizer.rqvae import RQVAE, RQVAEConfig, quantization_loss, reconstruction_loss


def tiny() -> RQVAE:
    """Encoder and decoder are the identity; codebooks by hand."""
    model = RQVAE(RQVAEConfig(2, (2, 3), hidden_sizes=(), latent_dim=2))
    with torch.no_grad():
        for path in (model.encoder, model.decoder):
            path.linear.weight.copy_(torch.eye(2))
            path.linear.bias.zero_()
        model.books[0].copy_(torch.tensor([[-4.0, 0.0], [4.0, 0.0]]))
        model.books[1].copy_(torch.tensor([[0.0, -1.0], [0.0, 0.0], [0.5, 2.0]]))
    return model


VECTORS = torch.tensor([[4.6, 1.8], [-3.0, -0.9]])


def test_forward_by_hand() -> None:
    output = tiny()(VECTORS)
    assert output.codes.tolist() == [[1, 2], [0, 0]]
    torch.testing.assert_close(output.residuals[:, 1], torch.tensor([[0.6, 1.8], [1.0, -0.9]]))
    torch.testing.assert_close(output.reconstruction, torch.tensor([[4.5, 2.0], [-4.0, -1.0]]))


def test_losses_by_hand() -> None:
    output = tiny()(VECTORS)
    # Errors (0.1, -0.2) and (1, 0.1), mean over two dimensions.
    torch.testing.assert_close(reconstruction_loss(output), torch.tensor([0.025, 0.505]))
    # Level 0: (0.6, 1.8) and (1, -0.9); level 1: the errors above; times 1 + 0.5.
    expected = torch.tensor([(0.36 + 3.24) / 2 + 0.025, (1.0 + 0.81) / 2 + 0.505]) * 1.5
    torch.testing.assert_close(quantization_loss(output, 0.5), expected)


def test_reconstruction_goes_straight_through_to_the_encoder_and_not_to_the_codebooks() -> None:
    model = tiny()
    reconstruction_loss(model(VECTORS)).sum().backward()
    assert model.books[0].grad is None or not model.books[0].grad.any()
    assert model.encoder.linear.bias.grad is not None
    # d/dz of mean((z - x)^2) is the error itself: 2 * error / 2.
    torch.testing.assert_close(model.encoder.linear.bias.grad, torch.tensor([-1.1, 0.1]))


def test_quantization_moves_the_chosen_entries_and_the_encoder() -> None:
    model = tiny()
    quantization_loss(model(VECTORS), 0.25).sum().backward()
    # 2 (c - r) / 2 for the chosen entry; an entry that nobody chose gets nothing.
    torch.testing.assert_close(model.books[0].grad, torch.tensor([[-1.0, 0.9], [-0.6, -1.8]]))
    torch.testing.assert_close(model.books[1].grad, torch.tensor([[-1.0, -0.1], [0.0, 0.0], [-0.1, 0.2]]))
    # Both levels, weight 0.25.
    torch.testing.assert_close(
        model.encoder.linear.bias.grad, 0.25 * torch.tensor([0.6 + 1.0 + 0.1 + 1.0, 1.8 - 0.9 - 0.2 + 0.1])
    )


def test_distances_carry_gradient_to_every_entry() -> None:
    model = tiny()
    sum(distance.sum() for distance in model(VECTORS).distances).backward()
    assert all((book.grad.abs().sum(dim=1) > 0).all() for book in model.books)


def test_start_is_residual_kmeans_on_principal_components() -> None:
    rng = np.random.default_rng(0)
    # Three directions of five carry everything.
    vectors = (rng.normal(size=(400, 3)) * [3, 2, 1] @ rng.normal(size=(3, 5)) + 7).astype(np.float32)
    model = RQVAE(RQVAEConfig(5, (4, 4), hidden_sizes=(8,), latent_dim=3))
    model.start(vectors, "shared", seed=0)
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
