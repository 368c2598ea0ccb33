"""What the same tensor is called by the three projects that publish LeViT weights.

The names of the original repository are canonical here. timm and transformers group the blocks by
stage; timm puts a shrinking attention at the head of its stage, transformers at the end of the
stage before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple

from levit_deploy.models.spec import ModelSpec


class Origin(StrEnum):
    """Whose code wrote a checkpoint."""

    ORIGINAL = "original"
    TIMM = "timm"
    TRANSFORMERS = "transformers"


class _Names(NamedTuple):
    original: str
    timm: str
    transformers: str

    def of(self, origin: Origin) -> str:
        return {
            Origin.ORIGINAL: self.original,
            Origin.TIMM: self.timm,
            Origin.TRANSFORMERS: self.transformers,
        }[origin]

    def part(self, original: str, timm: str, transformers: str) -> _Names:
        """The names of a submodule."""
        return _Names(
            f"{self.original}.{original}",
            f"{self.timm}.{timm}",
            f"{self.transformers}.{transformers}",
        )


def module_names(spec: ModelSpec, origin: Origin) -> dict[str, str]:
    """Canonical name -> name at `origin`, of every module that holds tensors itself.

    `blocks.0.m.qkv.c` -> `stages.0.blocks.0.attn.qkv.linear` (timm), for instance; the tensors'
    own names (`weight`, `running_var`, `attention_biases`, ...) are the same everywhere.
    """
    return {names.original: names.of(origin) for names in _modules(spec)}


def detect_origin(keys: Iterable[str]) -> Origin | None:
    """Told by the name of the first stem convolution; None: not a LeViT that anyone publishes."""
    first_conv, _ = _stem_conv(0)
    present = set(keys)
    return next((o for o in Origin if f"{first_conv.of(o)}.weight" in present), None)


def _modules(spec: ModelSpec) -> Iterator[_Names]:
    for n in range(4):
        yield from _stem_conv(n)

    block = 0
    for stage, depth in enumerate(spec.depths):
        layers = f"levit.encoder.stages.{stage}.layers"
        if stage > 0:
            end = f"levit.encoder.stages.{stage - 1}.layers"
            layer = 2 * spec.depths[stage - 1]
            timm = f"stages.{stage}.downsample"
            yield from _shrinking_attention(
                _Names(f"blocks.{block}", f"{timm}.attn_downsample", f"{end}.{layer}")
            )
            yield from _mlp(
                _Names(f"blocks.{block + 1}.m", f"{timm}.mlp", f"{end}.{layer + 1}.module")
            )
            block += 2
        for i in range(depth):
            timm = f"stages.{stage}.blocks.{i}"
            yield from _attention(
                _Names(f"blocks.{block}.m", f"{timm}.attn", f"{layers}.{2 * i}.module")
            )
            yield from _mlp(
                _Names(f"blocks.{block + 1}.m", f"{timm}.mlp", f"{layers}.{2 * i + 1}.module")
            )
            block += 2

    yield from _head(_Names("head", "head", "classifier"))
    if spec.distilled:
        yield from _head(_Names("head_dist", "head_dist", "classifier_distill"))


def _stem_conv(n: int) -> tuple[_Names, _Names]:
    conv = _Names(
        f"patch_embed.{2 * n}",  # hardswish has the odd numbers
        f"stem.conv{n + 1}",
        f"levit.patch_embeddings.embedding_layer_{n + 1}",
    )
    return conv.part("c", "linear", "convolution"), conv.part("bn", "bn", "batch_norm")


def _attention(attention: _Names) -> Iterator[_Names]:
    yield attention
    yield from _linear_bn(attention.part("qkv", "qkv", "queries_keys_values"))
    yield from _linear_bn(attention.part("proj.1", "proj.ln", "projection"))


def _shrinking_attention(attention: _Names) -> Iterator[_Names]:
    yield attention
    yield from _linear_bn(attention.part("kv", "kv", "keys_values"))
    yield from _linear_bn(attention.part("q.1", "q.ln", "queries"))
    yield from _linear_bn(attention.part("proj.1", "proj.ln", "projection"))


def _mlp(mlp: _Names) -> Iterator[_Names]:
    yield from _linear_bn(mlp.part("0", "ln1", "linear_up"))
    yield from _linear_bn(mlp.part("2", "ln2", "linear_down"))


def _linear_bn(linear: _Names) -> Iterator[_Names]:
    yield linear.part("c", "linear", "linear")
    yield linear.part("bn", "bn", "batch_norm")


def _head(head: _Names) -> Iterator[_Names]:
    yield head.part("bn", "bn", "batch_norm")
    yield head.part("l", "linear", "linear")
