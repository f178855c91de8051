"""RQ-VAE: an autoencoder whose bottleneck is a residual quantizer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from pressmark.catalog.principal_axes import principal_axes
from pressmark.distributed import gather_rows
from pressmark.tokenizer.kmeans import refine, residual_kmeans, sample_rows
from pressmark.tokenizer.quantizer import MIN_STD, by_chunks, check_codes, check_width, fit_standardisation
from pressmark.tokenizer.residual import dequantize, lowest, quantize, squared_distances


class RQVAEConfig(PreTrainedConfig):
    """Shape of an `RQVAE`.

    Args:
        input_dim: Width of the content vectors.
        level_sizes: Codes a level, coarse to fine.
        hidden_sizes: Widths between input and bottleneck; the decoder mirrors them.
        latent_dim: Width of the bottleneck and of every codebook entry.
    """

    model_type = "pressmark_rqvae"

    def __init__(
        self,
        input_dim: int = 384,
        level_sizes: Sequence[int] = (256, 256, 256, 256),
        hidden_sizes: Sequence[int] = (512, 256),
        latent_dim: int = 64,
        **kwargs: Any,
    ) -> None:
        self.input_dim = input_dim
        self.level_sizes = list(level_sizes)
        self.hidden_sizes = list(hidden_sizes)
        self.latent_dim = latent_dim
        super().__init__(**kwargs)


class CorrectedLinear(nn.Module):
    """A linear map plus an MLP that starts at zero and learns what the linear map cannot do.

    Args:
        widths: Input width, hidden widths, output width; without hidden widths the map stays linear.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.linear = nn.Linear(widths[0], widths[-1])
        layers: list[nn.Module] = []
        for wide, narrow in pairwise(widths[:-1]):
            layers += [nn.Linear(wide, narrow), nn.ReLU()]
        if layers:
            last = nn.Linear(widths[-2], widths[-1])
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            layers.append(last)
        self.mlp = nn.Sequential(*layers) if layers else None

    def outputs(self) -> list[nn.Linear]:
        """The layers whose sum is the output."""
        last = [self.linear] if self.mlp is None else [self.linear, self.mlp[-1]]
        return [one for one in last if isinstance(one, nn.Linear)]

    def forward(self, rows: Tensor) -> Tensor:
        """(N, in) float -> (N, out) float."""
        return self.linear(rows) if self.mlp is None else self.linear(rows) + self.mlp(rows)


class RQVAEOutput(NamedTuple):
    """One forward pass over B vectors. Everything a loss term needs is here, so that DDP sees it.

    Attributes:
        inputs: (B, D) float32, standardised.
        reconstruction: (B, D) float32, standardised.
        codes: (B, L) int64.
        residuals: L of (B, d) float32, what each level quantizes, the latents first; gradient reaches the
            encoder only.
        quantized: L of (B, d) float32, the entry each level chose; gradient reaches the codebooks only.
        error: (B, d) float32, what all levels leave over.
        distances: L of (B, K) float32, squared, from residual to every entry; gradient reaches both.
        mean_square: () float32, of the encoder's output over all processes, before it was scaled to 1.
    """

    inputs: Tensor
    reconstruction: Tensor
    codes: Tensor
    residuals: tuple[Tensor, ...]
    quantized: tuple[Tensor, ...]
    error: Tensor
    distances: tuple[Tensor, ...]
    mean_square: Tensor


class _Rotate(torch.autograd.Function):
    """Latents to their quantized sums; backward turns and scales the gradient as forward did the latents.

    With e and q the unit vectors of both and r that of e + q, forward is |q| / |e| (I - 2 r r^T + 2 q e^T).

    Source: Fifty et al., "Restructuring Vector Quantization with the Rotation Trick" (2024), section 4.
    """

    @staticmethod
    def forward(ctx: Any, latents: Tensor, quantized: Tensor) -> Tensor:
        ctx.save_for_backward(latents, quantized)
        return quantized.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,), (latents, quantized) = grads, ctx.saved_tensors
        length = latents.norm(dim=1, keepdim=True).clamp_min(1e-6)
        stretched = quantized.norm(dim=1, keepdim=True) / length
        e, q = latents / length, nn.functional.normalize(quantized, dim=1, eps=1e-6)
        r = nn.functional.normalize(e + q, dim=1, eps=1e-6)
        turned = grad - 2 * r * (r * grad).sum(1, keepdim=True) + 2 * e * (q * grad).sum(1, keepdim=True)
        return stretched * turned, None


class RQVAE(PreTrainedModel):
    """Residual-quantized variational autoencoder, a `Quantizer`.

    x -> standardise -> MLP -> z; level l codes r_l = z - sum of the entries before; the decoder reads the
    sum of the chosen entries, and its gradient passes straight through to the encoder.

    Source: Lee et al., "Autoregressive Image Generation using Residual Quantization" (CVPR 2022), section
    3.1, in the form of TIGER (Rajput et al. 2023, section 3.1). Unlike there the input is standardised, the
    codebooks start from balanced k-means level by level, and entries that nobody uses are revived.

    Attributes:
        through: How the decoder's gradient passes the quantizer: "straight" unchanged, "rotation" turned like
            the latent itself. Of training, not of the model on disk.
    """

    config_class = RQVAEConfig
    main_input_name = "vectors"
    mean: Tensor
    scale: Tensor

    def __init__(self, config: RQVAEConfig) -> None:
        super().__init__(config)
        self.input_dim = config.input_dim
        self.level_sizes = tuple(config.level_sizes)
        self.through = "straight"
        widths = [config.input_dim, *config.hidden_sizes, config.latent_dim]
        self.encoder = CorrectedLinear(widths)
        self.decoder = CorrectedLinear(widths[::-1])
        self.books = nn.ParameterList(
            nn.Parameter(torch.randn(size, config.latent_dim) * 0.02) for size in config.level_sizes
        )
        # Persistent, all of them: transformers fills other buffers with garbage, and an exact resume
        # needs the usage counts.
        self.register_buffer("mean", torch.zeros(config.input_dim))
        self.register_buffer("scale", torch.ones(config.input_dim))
        for level, size in enumerate(config.level_sizes):
            self.register_buffer(f"usage_{level}", torch.full((size,), 1.0 / size))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Keeps torch's own initialisation, which is made for plain MLPs."""

    def forward(self, vectors: Tensor, num_levels: Tensor | None = None) -> RQVAEOutput:
        """Encodes, quantizes and decodes (B, D) float32 vectors.

        Args:
            vectors: (B, D) float32.
            num_levels: (B,) int64; the decoder sees only so many codes of each row. All of them by default.
        """
        inputs = (vectors - self.mean) / self.scale
        latents = self.encoder(inputs).float()
        mean_square = gather_rows(latents.square().mean().view(1)).mean()
        if self.training:
            latents = latents * mean_square.clamp_min(1e-12).rsqrt()
        # bf16 cannot tell near entries apart.
        with torch.autocast(latents.device.type, enabled=False):
            residual, seen = latents, torch.zeros_like(latents)
            codes, residuals, quantized, distances = [], [], [], []
            for level, book in enumerate(self.books):
                distance = squared_distances(residual, book)
                code = lowest(distance)
                entry = nn.functional.embedding(code, book)
                codes.append(code)
                residuals.append(residual)
                quantized.append(entry)
                distances.append(distance)
                residual = residual - entry.detach()
                shown = entry.detach() if num_levels is None else entry.detach() * (num_levels > level)[:, None]
                seen = seen + shown
            if self.through == "rotation":
                passed = _Rotate.apply(latents, seen)
            else:
                passed = seen + (latents - latents.detach())
        reconstruction = self.decoder(passed).float()
        return RQVAEOutput(
            inputs=inputs,
            reconstruction=reconstruction,
            codes=torch.stack(codes, dim=1),
            residuals=tuple(residuals),
            quantized=tuple(quantized),
            error=residual,
            distances=tuple(distances),
            mean_square=mean_square.detach(),
        )

    def usage(self, level: int) -> Tensor:
        """(K,) float32: running share of training rows that chose each code of a level."""
        return getattr(self, f"usage_{level}")

    @torch.no_grad()
    def start(
        self,
        vectors: np.ndarray,
        scaling: str,
        seed: int,
        iterations: int = 20,
        balance: Sequence[float] = (0.0,),
    ) -> None:
        """Sets everything to a good start: residual k-means on principal components.

        Mean and scale are those of the vectors, the linear paths project to the principal components, scaled
        to a mean square of 1, and back, and the codebooks are the k-means centres of the residuals by level.

        Args:
            vectors: (N, D) float32 of the items to train on.
            scaling: See `standardisation`.
            seed: Of k-means.
            iterations: Lloyd steps a level.
            balance: Of k-means, a level.

        Raises:
            ValueError: If there are fewer vectors than codes in a level, or one is not finite.
        """
        fit_standardisation(self.mean, self.scale, vectors, scaling)
        mean, scale = self.mean.cpu().numpy(), self.scale.cpu().numpy()
        axes, std = principal_axes(vectors, mean, scale, self.config.latent_dim)
        shrink = 1.0 / max(std, MIN_STD)
        self.encoder.linear.weight.copy_(torch.from_numpy(axes * shrink))
        self.decoder.linear.weight.copy_(torch.from_numpy(axes.T / shrink))
        for linear in (self.encoder.linear, self.decoder.linear):
            linear.bias.zero_()
        sample = sample_rows(vectors, self.level_sizes, seed)
        latents = torch.from_numpy(self.latents(sample)).to(self.device)
        self._set_books(residual_kmeans(latents, self.level_sizes, seed, iterations, balance))

    @torch.no_grad()
    def polish(
        self, vectors: np.ndarray, seed: int, iterations: int, balance: Sequence[float], start: int
    ) -> None:
        """Moves the codebooks from level `start` on to the means of the finished latents; else as `start`.

        A running mean is some steps behind, and the last steps' noise is in it.
        """
        latents = torch.from_numpy(self.latents(sample_rows(vectors, self.level_sizes, seed))).to(self.device)
        self._set_books(refine(latents, list(self.books), iterations, balance, start))

    def _set_books(self, codebooks: Sequence[Tensor]) -> None:
        for book, centres in zip(self.books, codebooks, strict=True):
            book.copy_(centres)

    @torch.no_grad()
    def rescale(self, factor: Tensor) -> None:
        """Multiplies the encoder's output by a () float. In training it changes nothing but the scale at rest.

        Training scales each batch's latents to a mean square of 1. Left free they grow: the straight-through
        gradient takes the quantization error for a constant noise and runs away from it; codebooks lag behind.
        """
        for linear in self.encoder.outputs():
            linear.weight.mul_(factor)
            linear.bias.mul_(factor)

    @torch.no_grad()
    def fix_scale(self, vectors: np.ndarray) -> None:
        """Scales the encoder so that the latents of (N, D) vectors have a mean square of 1 without a batch."""
        total = 0.0
        for start in range(0, len(vectors), 65_536):
            total += float(np.square(self.latents(vectors[start : start + 65_536]), dtype=np.float64).sum())
        mean_square = total / max(1, len(vectors) * self.config.latent_dim)
        self.rescale(torch.tensor(max(mean_square, 1e-12) ** -0.5))

    def latents(self, vectors: np.ndarray) -> np.ndarray:
        """(N, D) float32 -> (N, d) float32, the encoder's output."""
        check_width(vectors, self.input_dim)
        out = np.empty((len(vectors), self.config.latent_dim), np.float32)
        return by_chunks(vectors, out, self.device, self._latents)

    def _latents(self, chunk: Tensor) -> Tensor:
        """Overwrites its argument."""
        return self.encoder(chunk.sub_(self.mean).div_(self.scale))

    def codebooks(self) -> list[np.ndarray]:
        """L arrays (K, d) float32."""
        return [book.detach().cpu().numpy().copy() for book in self.books]

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """(N, D) float32 -> (N, L) int64 nearest codes."""
        check_width(vectors, self.input_dim)
        codes, books = np.empty((len(vectors), len(self.books)), np.int64), list(self.books)
        return by_chunks(vectors, codes, self.device, lambda chunk: quantize(self._latents(chunk), books))

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """(N, L) int64 -> (N, D) float32 in the units of the input."""
        check_codes(codes, self.level_sizes)
        out, books = np.empty((len(codes), self.input_dim), np.float32), list(self.books)

        def decoded(chunk: Tensor) -> Tensor:
            return self.decoder(dequantize(chunk, books)) * self.scale + self.mean

        return by_chunks(codes, out, self.device, decoded)


def reconstruction_loss(output: RQVAEOutput) -> Tensor:
    """(B,) float32: squared error of each row, mean over the D standardised dimensions."""
    return (output.reconstruction - output.inputs).square().mean(dim=1)


def quantization_loss(output: RQVAEOutput, commitment_weight: float, codebook_weight: float) -> Tensor:
    """(B,) float32: how far each row is from its codes, mean over d dimensions.

    commitment_weight * ||z - sg(sum of entries)||^2 draws the latents to what all their codes say together;
    codebook_weight * ||sg(r) - c||^2, mean over levels, the entries to the residuals (0 where a running mean
    does that). Commitment level by level, as in the source, draws every product to its first cell's centre.

    Source: van den Oord et al., "Neural Discrete Representation Learning" (2017), equation 3.
    """
    total = commitment_weight * output.error.square().mean(dim=1)
    if codebook_weight:
        for residual, entry in zip(output.residuals, output.quantized, strict=True):
            moved = (residual.detach() - entry).square().mean(dim=1)
            total = total + codebook_weight / len(output.residuals) * moved
    return total
