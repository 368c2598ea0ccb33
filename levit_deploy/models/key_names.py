"""What the same tensor is called by the three projects that publish LeViT weights.

The names of the original repository are canonical here. timm and transformers group the blocks by
stage; timm puts a shrinking attention at the head of its stage, transformers at the end of the
stage before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import Enum, StrEnum
from itertools import count


class Origin(StrEnum):
    """Whose code wrote a checkpoint; OURS: the demo, under the original's names; ONNX: some tool,
    which does not say of whose code."""

    ORIGINAL = "original"
    TIMM = "timm"
    TRANSFORMERS = "transformers"
    OURS = "ours"
    ONNX = "onnx"


class Layer(Enum):
    """What a module holds."""

    CONV = "a convolution, then BatchNorm"
    LINEAR = "a linear layer, then BatchNorm"
    HEAD = "BatchNorm, then a linear layer"
    BIASES = "an attention's table of biases"


class Block(Enum):
    """What a block of the network is."""

    ATTENTION = "attention"
    SHRINK = "shrinking attention"
    MLP = "mlp"


@dataclass(frozen=True)
class LayerName:
    """A module that holds weights: its canonical name, and its name at the origin."""

    layer: Layer
    canonical: str
    own: str


@dataclass(frozen=True)
class Scheme:
    """The names of one origin.

    `weights`: what holds the weight beside the `batch_norm`. `stem`: the n-th convolution.
    `places`: where blocks are. `parts`: linear layers of each kind of block, in canonical order.
    `table`: the attention in its block. `heads`: without and with the teacher's.
    """

    weights: dict[Layer, str]
    batch_norm: str
    stem: str
    stem_first: int
    stem_step: int
    places: tuple[str, ...]
    parts: dict[Block, tuple[str, ...]]
    table: dict[Block, str]
    heads: tuple[str, str]

    @property
    def roots(self) -> tuple[str, ...]:
        """First components of all names but those of the heads."""
        return tuple(name.partition(".")[0] for name in (self.stem, self.places[0]))

    def convolution(self, n: int) -> str:
        """The n-th convolution of the stem."""
        return self.stem.format(self.stem_first + self.stem_step * n)

    @property
    def first_weights(self) -> tuple[str, str]:
        """What the first weight of the stem is called: beside its BatchNorm, and fused."""
        module = self.convolution(0)
        return f"{module}.{self.weights[Layer.CONV]}.weight", f"{module}.weight"


SCHEMES = {
    Origin.ORIGINAL: Scheme(
        weights={Layer.CONV: "c", Layer.LINEAR: "c", Layer.HEAD: "l"},
        batch_norm="bn",
        stem="patch_embed.{}",
        stem_first=0,
        stem_step=2,  # activations have the odd numbers
        places=("blocks.{n}",),
        parts={
            Block.ATTENTION: ("m.qkv", "m.proj.1"),
            Block.SHRINK: ("kv", "q.1", "proj.1"),
            Block.MLP: ("m.0", "m.2"),
        },
        table={Block.ATTENTION: ".m", Block.SHRINK: ""},
        heads=("head", "head_dist"),
    ),
    Origin.TIMM: Scheme(
        weights={Layer.CONV: "linear", Layer.LINEAR: "linear", Layer.HEAD: "linear"},
        batch_norm="bn",
        stem="stem.conv{}",
        stem_first=1,
        stem_step=1,
        places=("stages.{stage}.downsample", "stages.{stage}.blocks.{n}"),
        parts={
            Block.ATTENTION: ("attn.qkv", "attn.proj.ln"),
            Block.SHRINK: (
                "attn_downsample.kv",
                "attn_downsample.q.ln",
                "attn_downsample.proj.ln",
            ),
            Block.MLP: ("mlp.ln1", "mlp.ln2"),
        },
        table={Block.ATTENTION: ".attn", Block.SHRINK: ".attn_downsample"},
        heads=("head", "head_dist"),
    ),
    Origin.TRANSFORMERS: Scheme(
        weights={Layer.CONV: "convolution", Layer.LINEAR: "linear", Layer.HEAD: "linear"},
        batch_norm="batch_norm",
        stem="patch_embeddings.embedding_layer_{}",
        stem_first=1,
        stem_step=1,
        places=("encoder.stages.{stage}.layers.{n}",),
        parts={
            Block.ATTENTION: ("module.queries_keys_values", "module.projection"),
            Block.SHRINK: ("keys_values", "queries", "projection"),
            Block.MLP: ("module.linear_up", "module.linear_down"),
        },
        table={Block.ATTENTION: ".module", Block.SHRINK: ""},
        heads=("classifier", "classifier_distill"),
    ),
}
CANONICAL = SCHEMES[Origin.ORIGINAL]


def layer_names(keys: Collection[str], origin: Origin) -> list[LayerName]:
    """Every layer that names in a file speak of, in the order of the network.

    transformers' `levit.` in front of all but the heads must be gone. Counting ends at the first
    number that is not there.
    """
    scheme = SCHEMES[origin]
    modules = {key[:dot] for key in keys for dot, letter in enumerate(key) if letter == "."}
    layers = []
    for n in count():
        if scheme.convolution(n) not in modules:
            break
        layers.append(LayerName(Layer.CONV, CANONICAL.convolution(n), scheme.convolution(n)))
    for number, (block, place) in enumerate(_blocks(modules, scheme)):
        canonical = f"blocks.{number}"
        for part, own in zip(CANONICAL.parts[block], scheme.parts[block], strict=True):
            layers.append(LayerName(Layer.LINEAR, f"{canonical}.{part}", f"{place}.{own}"))
        if block in scheme.table:
            table = canonical + CANONICAL.table[block]
            layers.append(LayerName(Layer.BIASES, table, place + scheme.table[block]))
    for canonical, own in zip(CANONICAL.heads, scheme.heads, strict=True):
        linear, norm = f"{own}.{scheme.weights[Layer.HEAD]}", f"{own}.{scheme.batch_norm}"
        if f"{own}.weight" in keys or {linear, norm} & modules:
            layers.append(LayerName(Layer.HEAD, canonical, own))
    return layers


def _blocks(modules: set[str], scheme: Scheme) -> Iterator[tuple[Block, str]]:
    """Each block in the order of the network, with the module that it is in."""
    for stage in count():
        places = [place.replace("{stage}", str(stage)) for place in scheme.places]
        found = [pair for place in places for pair in _blocks_at(modules, scheme, place)]
        yield from found
        if not found or places == list(scheme.places):  # the original counts through all stages
            return


def _blocks_at(modules: set[str], scheme: Scheme, places: str) -> Iterator[tuple[Block, str]]:
    for n in count():
        place = places.replace("{n}", str(n))
        found = [
            block
            for block, parts in scheme.parts.items()
            if any(f"{place}.{part}" in modules for part in parts)
        ]
        yield from ((block, place) for block in found)
        if not found or place == places:
            return
