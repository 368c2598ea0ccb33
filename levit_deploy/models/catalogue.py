"""What each variant costs and how good it is: parameters, multiply-adds, accuracy in the paper."""

from __future__ import annotations

from dataclasses import dataclass

from levit_deploy.models.spec import FAMILY, MLP_RATIO, ModelSpec

# ImageNet top-1 in percent, with distillation: table 3 of the paper.
PAPER_TOP1 = {
    "levit_128s": 76.6,
    "levit_128": 78.6,
    "levit_192": 80.0,
    "levit_256": 81.6,
    "levit_384": 82.6,
}


@dataclass(frozen=True)
class CatalogueEntry:
    """`parameters` as trained, both heads; `multiply_adds` for one image; `paper_top1` percent."""

    spec: ModelSpec
    parameters: int
    multiply_adds: int
    paper_top1: float


def catalogue() -> list[CatalogueEntry]:
    """The family, smallest first."""
    return [
        CatalogueEntry(spec, parameters(spec), multiply_adds(spec), PAPER_TOP1[spec.name])
        for spec in FAMILY.values()
    ]


@dataclass(frozen=True)
class _Linear:
    """A linear or convolution layer: weights (inputs, outputs), applied at `positions`."""

    positions: int
    inputs: int
    outputs: int


@dataclass(frozen=True)
class _Scores:
    """An attention's products of queries and keys, and of scores and values."""

    heads: int
    queries: int
    keys: int
    key_dim: int
    value_dim: int


def multiply_adds(spec: ModelSpec) -> int:
    """Multiplications of one image's matrix products and convolutions.

    BatchNorm is folded, and the two heads are one linear layer, as in the compiled library.
    """
    linears, scores = _layers(spec)
    heads = spec.channels[2] * spec.classes
    return (
        sum(linear.positions * linear.inputs * linear.outputs for linear in linears)
        + sum(s.heads * s.queries * s.keys * (s.key_dim + s.value_dim) for s in scores)
        + heads
    )


def parameters(spec: ModelSpec) -> int:
    """Trained values: weights, BatchNorm's factors and offsets, attention biases, heads."""
    linears, scores = _layers(spec)
    head = 2 * spec.channels[2] + spec.channels[2] * spec.classes + spec.classes
    return (
        sum(linear.inputs * linear.outputs + 2 * linear.outputs for linear in linears)
        + sum(s.heads * s.keys for s in scores)  # one bias for each offset: as many as keys
        + head * (2 if spec.distilled else 1)
    )


def _layers(spec: ModelSpec) -> tuple[list[_Linear], list[_Scores]]:
    linears, scores = [], []
    inputs, side = 3, spec.image_size
    for outputs in spec.stem_channels:
        side //= 2
        linears.append(_Linear(side * side, 9 * inputs, outputs))
        inputs = outputs
    for stage, (channels, grid) in enumerate(zip(spec.channels, spec.grids, strict=True)):
        tokens, heads, key_dim = grid * grid, spec.heads[stage], spec.key_dim
        mlp = [
            _Linear(tokens, channels, MLP_RATIO * channels),
            _Linear(tokens, MLP_RATIO * channels, channels),
        ]
        if stage > 0:
            before, keys = spec.channels[stage - 1], spec.grids[stage - 1] ** 2
            shrink_heads, value_dim = spec.shrink_heads[stage - 1], spec.shrink_value_dim
            scores.append(_Scores(shrink_heads, tokens, keys, key_dim, value_dim))
            linears += [
                _Linear(keys, before, shrink_heads * (key_dim + value_dim)),
                _Linear(tokens, before, shrink_heads * key_dim),
                _Linear(tokens, shrink_heads * value_dim, channels),
                *mlp,
            ]
        for _ in range(spec.depths[stage]):
            scores.append(_Scores(heads, tokens, tokens, key_dim, spec.value_dim))
            linears += [
                _Linear(tokens, channels, heads * (2 * key_dim + spec.value_dim)),
                _Linear(tokens, heads * spec.value_dim, channels),
                *mlp,
            ]
    return linears, scores
