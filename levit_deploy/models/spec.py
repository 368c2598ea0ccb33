"""The LeViT family as data: what each variant is made of.

Source: Graham et al., "LeViT: a Vision Transformer in ConvNet's Clothing for Faster Inference",
ICCV 2021, table 2. The paper writes C for channels, D for key_dim, N for heads, X for depth.
This module imports nothing heavy: the command line lists models without loading torch.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from levit_deploy.errors import DeployError

STEM_STRIDE = 16  # four convolutions of stride 2, as published
ATTENTION_RATIO = 2  # value channels / key channels of a head
SHRINK_ATTENTION_RATIO = 4  # the same in a shrinking attention
MLP_RATIO = 2  # hidden channels / channels of an MLP


class Activation(StrEnum):
    """The function between layers, the same everywhere in a net. GELU is the exact one, by erf."""

    HARD_SWISH = "hard_swish"
    SILU = "silu"
    RELU = "relu"
    GELU = "gelu"


@dataclass(frozen=True)
class Normalization:
    """Per-channel statistics, RGB or grey: the network sees `(value / 255 - mean) / std`."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def channels(self) -> int:
        return len(self.mean)


IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@dataclass(frozen=True)
class AttentionSizes:
    """An attention over tokens of `channels`; `key_dim`, `value_dim`: channels of every head."""

    channels: int
    heads: int
    key_dim: int
    value_dim: int


@dataclass(frozen=True)
class ShrinkSizes:
    """An attention whose queries are every second token; its tokens have `out_channels`."""

    channels: int
    heads: int
    key_dim: int
    value_dim: int
    out_channels: int


@dataclass(frozen=True)
class MlpSizes:
    """Two linear layers: `channels` -> `hidden` -> `channels`."""

    channels: int
    hidden: int


BlockSizes = AttentionSizes | ShrinkSizes | MlpSizes


@dataclass(frozen=True)
class Layout:
    """Every size of a LeViT between the image and the head: what a trained tensor's shape shows.

    `stem`: output channels of the convolutions, each of stride 2. `blocks`: in order.
    """

    stem: tuple[int, ...]
    blocks: tuple[BlockSizes, ...]


@dataclass(frozen=True)
class ModelSpec:
    """One LeViT: stages of attention and MLP blocks behind a convolutional stem.

    `channels`, `depths`, `heads`: one value a stage. `key_dim`: channels of a key in every head.
    `classes`: 0 if there is no head: then the output is the mean over tokens, `channels[-1]`
    values. `distilled`: a second head, trained on a teacher; the logits are the mean of both.
    `custom`: the sizes, where they are not those that the paper's rules make of the other fields.
    Raises DeployError if the class count or the image size is impossible.
    """

    name: str
    channels: tuple[int, ...]
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    key_dim: int
    image_size: int = 224
    classes: int = 1000
    distilled: bool = True
    normalization: Normalization = IMAGENET
    activation: Activation = Activation.HARD_SWISH
    in_chans: int = 3
    stem_stride: int = STEM_STRIDE
    custom: Layout | None = None

    def __post_init__(self) -> None:
        stride = self.stem_stride
        if self.image_size < stride or self.image_size % stride:
            nearest = max(1, round(self.image_size / stride)) * stride
            raise DeployError(
                f"image size `{self.image_size}` does not fit {self.name}: the stem divides it "
                f"by {stride}",
                hint=f"use a multiple of {stride}, such as {nearest}",
            )
        if self.classes < 0 or self.in_chans < 1:
            raise DeployError(
                f"`{self.classes}` classes of `{self.in_chans}` channels are impossible",
                hint="use at least 1 channel; 0 classes give features",
            )

    @property
    def outputs(self) -> int:
        """How many values one image gives: logits, or features where there is no head."""
        return self.classes or self.channels[-1]

    @property
    def layout(self) -> Layout:
        """Every size between the image and the head."""
        return self.custom or Layout(self._published_stem(), tuple(self._published_blocks()))

    @property
    def stem_channels(self) -> tuple[int, ...]:
        """Output channels of the stem's convolutions."""
        return self.layout.stem

    @property
    def grids(self) -> tuple[int, ...]:
        """Side of the square token grid in each stage; a shrinking attention keeps every second."""
        grids = [self.image_size // self.stem_stride]
        while len(grids) < len(self.channels):
            grids.append((grids[-1] + 1) // 2)
        return tuple(grids)

    @property
    def value_dim(self) -> int:
        """Channels of a value in every head of an attention."""
        return ATTENTION_RATIO * self.key_dim

    @property
    def shrink_value_dim(self) -> int:
        """Channels of a value in every head of a shrinking attention."""
        return SHRINK_ATTENTION_RATIO * self.key_dim

    @property
    def shrink_heads(self) -> tuple[int, ...]:
        """Heads of the shrinking attentions after each stage but the last."""
        return tuple(channels // self.key_dim for channels in self.channels[:-1])

    def _published_stem(self) -> tuple[int, ...]:
        convolutions = self.stem_stride.bit_length() - 1
        return tuple(self.channels[0] >> n for n in reversed(range(convolutions)))

    def _published_blocks(self) -> Iterator[BlockSizes]:
        key, value = self.key_dim, self.value_dim
        for stage, channels in enumerate(self.channels):
            mlp = MlpSizes(channels, MLP_RATIO * channels)
            if stage > 0:
                before, heads = self.channels[stage - 1], self.shrink_heads[stage - 1]
                yield ShrinkSizes(before, heads, key, self.shrink_value_dim, channels)
                yield mlp
            for _ in range(self.depths[stage]):
                yield AttentionSizes(channels, self.heads[stage], key, value)
                yield mlp


_PAPER = (
    ModelSpec("levit_128s", (128, 256, 384), (2, 3, 4), (4, 6, 8), key_dim=16),
    ModelSpec("levit_128", (128, 256, 384), (4, 4, 4), (4, 8, 12), key_dim=16),
    ModelSpec("levit_192", (192, 288, 384), (4, 4, 4), (3, 5, 6), key_dim=32),
    ModelSpec("levit_256", (256, 384, 512), (4, 4, 4), (4, 6, 8), key_dim=32),
    ModelSpec("levit_384", (384, 512, 768), (4, 4, 4), (6, 9, 12), key_dim=32),
)


def _timm(
    name: str,
    channels: tuple[int, int, int],
    depths: tuple[int, int, int],
    heads: tuple[int, int, int],
    key_dim: int,
    *,
    stem_stride: int = STEM_STRIDE,
    distilled: bool = False,
) -> ModelSpec:
    """A variant of timm's own (timm/models/levit.py): SiLU, and one head but for levit_384_s8."""
    return ModelSpec(
        name,
        channels,
        depths,
        heads,
        key_dim,
        distilled=distilled,
        activation=Activation.SILU,
        stem_stride=stem_stride,
    )


FAMILY: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        *_PAPER,
        _timm("levit_256d", (256, 384, 512), (4, 8, 6), (4, 6, 8), 32),
        _timm("levit_512", (512, 768, 1024), (4, 4, 4), (8, 12, 16), 64),
        _timm("levit_512d", (512, 640, 768), (4, 8, 6), (8, 10, 12), 64),
        _timm(
            "levit_384_s8", (384, 512, 768), (4, 4, 4), (6, 9, 12), 32,
            stem_stride=8, distilled=True,
        ),
        _timm("levit_512_s8", (512, 640, 896), (4, 4, 4), (8, 10, 14), 64, stem_stride=8),
    )
}  # fmt: skip

# Small enough for tests and examples to compile in seconds; not a published variant.
TINY = ModelSpec(
    "levit_tiny", (32, 48, 64), (1, 1, 1), (2, 3, 4), key_dim=8, image_size=64, classes=10
)


def get_spec(name: str) -> ModelSpec:
    """The family member called `name`, as published: 224 px, 1000 classes, its number of heads.

    timm's `levit_conv_*` are the same networks in another form. Raises DeployError with the
    nearest names if there is none.
    """
    spec = FAMILY.get(name.replace("levit_conv_", "levit_"))
    if spec is not None:
        return spec
    typed = name.rpartition("/")[2].partition(".")[0].lower().replace("-", "_")
    near = difflib.get_close_matches(typed, FAMILY, n=1, cutoff=0.8)
    hint = f"did you mean `{near[0]}`?" if near else f"choose one of {', '.join(FAMILY)}"
    raise DeployError(f"unknown model `{name}`", hint=hint)
