"""The LeViT family as data: what each variant is made of.

Source: Graham et al., "LeViT: a Vision Transformer in ConvNet's Clothing for Faster Inference",
ICCV 2021, table 2. The paper writes C for channels, D for key_dim, N for heads, X for depth.
This module imports nothing heavy: the command line lists models without loading torch.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from levit_deploy.errors import DeployError

STEM_STRIDE = 16  # four convolutions of stride 2
ATTENTION_RATIO = 2  # value channels / key channels of a head
SHRINK_ATTENTION_RATIO = 4  # the same in a shrinking attention
MLP_RATIO = 2  # hidden channels / channels of an MLP


@dataclass(frozen=True)
class Normalization:
    """Per-channel RGB statistics: the network sees `(rgb / 255 - mean) / std`."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@dataclass(frozen=True)
class ModelSpec:
    """One LeViT: three stages of attention and MLP blocks behind a convolutional stem.

    `channels`, `depths`, `heads`: one value a stage. `key_dim`: channels of a key in every head.
    `distilled`: a second head, trained on a teacher; the logits are the mean of both.
    Raises DeployError if the class count or the image size is impossible.
    """

    name: str
    channels: tuple[int, int, int]
    depths: tuple[int, int, int]
    heads: tuple[int, int, int]
    key_dim: int
    image_size: int = 224
    classes: int = 1000
    distilled: bool = True
    normalization: Normalization = IMAGENET

    def __post_init__(self) -> None:
        if self.image_size < STEM_STRIDE or self.image_size % STEM_STRIDE:
            nearest = max(1, round(self.image_size / STEM_STRIDE)) * STEM_STRIDE
            raise DeployError(
                f"image size `{self.image_size}` does not fit {self.name}: the stem divides it "
                f"by {STEM_STRIDE}",
                hint=f"use a multiple of {STEM_STRIDE}, such as {nearest}",
            )
        if self.classes < 1:
            raise DeployError(
                f"class count `{self.classes}` is not positive", hint="use at least 1 class"
            )

    @property
    def stem_channels(self) -> tuple[int, int, int, int]:
        """Output channels of the four stem convolutions."""
        c = self.channels[0]
        return c // 8, c // 4, c // 2, c

    @property
    def grids(self) -> tuple[int, int, int]:
        """Side of the square token grid in each stage; a shrinking attention keeps every second."""
        first = self.image_size // STEM_STRIDE
        second = (first + 1) // 2
        return first, second, (second + 1) // 2

    @property
    def value_dim(self) -> int:
        """Channels of a value in every head of an attention."""
        return ATTENTION_RATIO * self.key_dim

    @property
    def shrink_value_dim(self) -> int:
        """Channels of a value in every head of a shrinking attention."""
        return SHRINK_ATTENTION_RATIO * self.key_dim

    @property
    def shrink_heads(self) -> tuple[int, int]:
        """Heads of the shrinking attentions after stage 1 and stage 2."""
        return self.channels[0] // self.key_dim, self.channels[1] // self.key_dim


FAMILY: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        ModelSpec("levit_128s", (128, 256, 384), (2, 3, 4), (4, 6, 8), key_dim=16),
        ModelSpec("levit_128", (128, 256, 384), (4, 4, 4), (4, 8, 12), key_dim=16),
        ModelSpec("levit_192", (192, 288, 384), (4, 4, 4), (3, 5, 6), key_dim=32),
        ModelSpec("levit_256", (256, 384, 512), (4, 4, 4), (4, 6, 8), key_dim=32),
        ModelSpec("levit_384", (384, 512, 768), (4, 4, 4), (6, 9, 12), key_dim=32),
    )
}

# Small enough for tests and examples to compile in seconds; not a published variant.
TINY = ModelSpec(
    "levit_tiny", (32, 48, 64), (1, 1, 1), (2, 3, 4), key_dim=8, image_size=64, classes=10
)


def get_spec(name: str) -> ModelSpec:
    """The family member called `name`, as published: 224 px, 1000 classes, two heads.

    Raises DeployError with the nearest names if there is none.
    """
    spec = FAMILY.get(name)
    if spec is not None:
        return spec
    near = difflib.get_close_matches(name.lower().replace("-", "_"), FAMILY, n=1, cutoff=0.5)
    hint = f"did you mean `{near[0]}`?" if near else f"choose one of {', '.join(FAMILY)}"
    raise DeployError(f"unknown model `{name}`", hint=hint)
