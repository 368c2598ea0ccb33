"""LeViT in PyTorch, to be read beside the paper: the truth that every artifact is held against.

Parameter names are those of the original repository (facebookresearch/LeViT), so that its
checkpoints load as they are. Evaluation mode only: the logits of the two heads are averaged.

Layouts: images (batch, 3, size, size); after the stem, tokens (batch, tokens, channels), row by
row of a square grid.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from levit_deploy.models.spec import (
    Activation,
    AttentionSizes,
    MlpSizes,
    ModelSpec,
    ShrinkSizes,
)

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    Activation.HARD_SWISH: nn.Hardswish,
    Activation.SILU: nn.SiLU,
    Activation.RELU: nn.ReLU,
    Activation.GELU: nn.GELU,
}


class ConvBN(nn.Sequential):
    """A 3x3 convolution of stride 2 without bias, then BatchNorm; halves the image."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.add_module("c", nn.Conv2d(in_channels, out_channels, 3, 2, 1, bias=False))
        self.add_module("bn", nn.BatchNorm2d(out_channels))


class LinearBN(nn.Module):
    """A linear layer without bias, then BatchNorm over all tokens."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.c = nn.Linear(in_channels, out_channels, bias=False)
        self.bn = nn.BatchNorm1d(out_channels)

    def forward(self, tokens: Tensor) -> Tensor:
        linear: Tensor = self.c(tokens)
        normalised: Tensor = self.bn(linear.flatten(0, 1))
        return normalised.reshape_as(linear)


class BNLinear(nn.Sequential):
    """A head: BatchNorm, then a linear layer with bias."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.add_module("bn", nn.BatchNorm1d(channels))
        self.add_module("l", nn.Linear(channels, classes))


class Residual(nn.Module):
    """x + m(x)."""

    def __init__(self, m: nn.Module) -> None:
        super().__init__()
        self.m = m

    def forward(self, tokens: Tensor) -> Tensor:
        branch: Tensor = self.m(tokens)
        return tokens + branch


class Subsample(nn.Module):
    """Keep every second row and column of a square token grid."""

    def __init__(self, grid: int) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, tokens: Tensor) -> Tensor:
        batch, _, channels = tokens.shape
        image = tokens.view(batch, self.grid, self.grid, channels)
        return image[:, ::2, ::2].reshape(batch, -1, channels)


def attention_bias_indices(grid: int, stride: int = 1) -> Tensor:
    """Which entry of the bias table each (query, key) pair reads.

    The bias depends on the absolute offset alone: entry `dy * grid + dx`, with dy and dx between
    the query's position (every `stride`-th of the grid) and the key's (paper, section 3.3).
    Returns int64 (queries, keys), values in 0 .. grid * grid - 1.
    """
    if torch.get_default_device().type == "meta":  # to compute there imports sympy: two seconds
        return torch.empty((-(-grid // stride)) ** 2, grid**2, dtype=torch.int64)
    keys = torch.arange(grid)
    offset = (keys[::stride, None] - keys[None, :]).abs()  # one axis: (queries, keys)
    dy = offset[:, None, :, None]
    dx = offset[None, :, None, :]
    return (dy * grid + dx).flatten(2, 3).flatten(0, 1)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Multi-head attention: softmax(q k^T / sqrt(key_dim) + bias) v.

    q, k: (batch, tokens, heads, key_dim), v: (batch, keys, heads, value_dim),
    bias: (heads, queries, keys). Returns (batch, queries, heads * value_dim).
    """
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    scale: float = q.shape[3] ** -0.5
    scores = q @ k.transpose(2, 3) * scale + bias
    return (scores.softmax(dim=3) @ v).transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Attention with a learned bias for each offset, an activation before the projection."""

    attention_bias_idxs: Tensor

    def __init__(self, sizes: AttentionSizes, grid: int, activation: Activation) -> None:
        super().__init__()
        heads = sizes.heads
        self.heads, self.key_dim, self.value_dim = heads, sizes.key_dim, sizes.value_dim
        self.qkv = LinearBN(sizes.channels, heads * (2 * self.key_dim + self.value_dim))
        project = LinearBN(heads * self.value_dim, sizes.channels)
        self.proj = nn.Sequential(ACTIVATIONS[activation](), project)
        self.attention_biases = nn.Parameter(torch.zeros(heads, grid * grid))
        self.register_buffer("attention_bias_idxs", attention_bias_indices(grid))

    def forward(self, tokens: Tensor) -> Tensor:
        qkv = self.qkv(tokens).unflatten(2, (self.heads, -1))
        q, k, v = qkv.split([self.key_dim, self.key_dim, self.value_dim], dim=3)
        bias = self.attention_biases[:, self.attention_bias_idxs]
        out: Tensor = self.proj(attend(q, k, v, bias))
        return out


class ShrinkingAttention(nn.Module):
    """Attention whose queries are every second token: the grid shrinks, the channels grow."""

    attention_bias_idxs: Tensor

    def __init__(self, sizes: ShrinkSizes, grid: int, activation: Activation) -> None:
        super().__init__()
        heads = sizes.heads
        self.heads, self.key_dim, self.value_dim = heads, sizes.key_dim, sizes.value_dim
        self.kv = LinearBN(sizes.channels, heads * (self.key_dim + self.value_dim))
        self.q = nn.Sequential(Subsample(grid), LinearBN(sizes.channels, heads * self.key_dim))
        project = LinearBN(heads * self.value_dim, sizes.out_channels)
        self.proj = nn.Sequential(ACTIVATIONS[activation](), project)
        self.attention_biases = nn.Parameter(torch.zeros(heads, grid * grid))
        self.register_buffer("attention_bias_idxs", attention_bias_indices(grid, stride=2))

    def forward(self, tokens: Tensor) -> Tensor:
        kv = self.kv(tokens).unflatten(2, (self.heads, -1))
        k, v = kv.split([self.key_dim, self.value_dim], dim=3)
        q = self.q(tokens).unflatten(2, (self.heads, -1))
        bias = self.attention_biases[:, self.attention_bias_idxs]
        out: Tensor = self.proj(attend(q, k, v, bias))
        return out


def mlp(sizes: MlpSizes, activation: Activation) -> Residual:
    """Two linear layers with an activation between them, around a residual."""
    expand, contract = (
        LinearBN(sizes.channels, sizes.hidden),
        LinearBN(sizes.hidden, sizes.channels),
    )
    return Residual(nn.Sequential(expand, ACTIVATIONS[activation](), contract))


def stem(spec: ModelSpec) -> nn.Sequential:
    """Stride-2 convolutions, activations between them: image -> `channels[0]` per patch."""
    layers: list[nn.Module] = []
    in_channels = spec.in_chans
    for out_channels in spec.stem_channels:
        layers += [ConvBN(in_channels, out_channels), ACTIVATIONS[spec.activation]()]
        in_channels = out_channels
    return nn.Sequential(*layers[:-1])


class Levit(nn.Module):
    """LeViT: stem, stages with shrinking attentions between them, mean, heads.

    Input: normalised pixels (batch, in_chans, image_size, image_size) float32. Output: logits
    (batch, classes); without a head, features (batch, channels). Built in evaluation mode, with
    fresh weights.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.patch_embed = stem(spec)
        blocks: list[nn.Module] = []
        grid = spec.grids[0]
        for sizes in spec.layout.blocks:
            if isinstance(sizes, MlpSizes):
                blocks.append(mlp(sizes, spec.activation))
            elif isinstance(sizes, AttentionSizes):
                blocks.append(Residual(Attention(sizes, grid, spec.activation)))
            else:
                blocks.append(ShrinkingAttention(sizes, grid, spec.activation))
                grid = (grid + 1) // 2
        self.blocks = nn.Sequential(*blocks)
        if spec.classes:
            self.head = BNLinear(spec.channels[-1], spec.classes)
            if spec.distilled:
                self.head_dist = BNLinear(spec.channels[-1], spec.classes)
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.patch_embed(image).flatten(2).transpose(1, 2)
        features: Tensor = self.blocks(tokens).mean(dim=1)
        if not self.spec.classes:
            return features
        logits: Tensor = self.head(features)
        if self.spec.distilled:
            logits = (logits + self.head_dist(features)) / 2
        return logits
