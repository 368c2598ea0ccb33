"""What each variant costs and how good it is: parameters, multiply-adds, accuracy in the paper."""

from __future__ import annotations

from dataclasses import dataclass

from levit_deploy.models.spec import FAMILY, AttentionSizes, MlpSizes, ModelSpec

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
    """`parameters` as trained, all heads; `multiply_adds` for one image.

    `paper_top1`: percent; None where nobody has published weights.
    """

    spec: ModelSpec
    parameters: int
    multiply_adds: int
    paper_top1: float | None


def catalogue() -> list[CatalogueEntry]:
    """The family: the paper's, smallest first, then timm's own."""
    return [
        CatalogueEntry(spec, parameters(spec), multiply_adds(spec), PAPER_TOP1.get(spec.name))
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
    heads = spec.channels[-1] * spec.classes
    return (
        sum(linear.positions * linear.inputs * linear.outputs for linear in linears)
        + sum(s.heads * s.queries * s.keys * (s.key_dim + s.value_dim) for s in scores)
        + heads
    )


def parameters(spec: ModelSpec) -> int:
    """Trained values: weights, BatchNorm's factors and offsets, attention biases, heads."""
    linears, scores = _layers(spec)
    features = spec.channels[-1]
    head = 2 * features + features * spec.classes + spec.classes if spec.classes else 0
    return (
        sum(linear.inputs * linear.outputs + 2 * linear.outputs for linear in linears)
        + sum(s.heads * s.keys for s in scores)  # one bias for each offset: as many as keys
        + head * (2 if spec.distilled else 1)
    )


def _layers(spec: ModelSpec) -> tuple[list[_Linear], list[_Scores]]:
    linears, scores = [], []
    inputs, side = spec.in_chans, spec.image_size
    for outputs in spec.stem_channels:
        side //= 2
        linears.append(_Linear(side * side, 9 * inputs, outputs))
        inputs = outputs
    for block in spec.layout.blocks:
        keys = side * side
        if isinstance(block, MlpSizes):
            linears += [
                _Linear(keys, block.channels, block.hidden),
                _Linear(keys, block.hidden, block.channels),
            ]
            continue
        heads, key_dim, value_dim = block.heads, block.key_dim, block.value_dim
        linears.append(_Linear(keys, block.channels, heads * (key_dim + value_dim)))
        if isinstance(block, AttentionSizes):
            outputs = block.channels
        else:
            outputs = block.out_channels
            side = (side + 1) // 2
        queries = side * side
        scores.append(_Scores(heads, queries, keys, key_dim, value_dim))
        linears += [
            _Linear(queries, block.channels, heads * key_dim),
            _Linear(queries, heads * value_dim, outputs),
        ]
    return linears, scores
