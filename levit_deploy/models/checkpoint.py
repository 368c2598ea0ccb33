"""Checkpoint: trained weights under canonical names, whichever project wrote them.

original | timm | transformers, any float type -> names, shapes and values checked -> float32 under
the original repository's names, with the spec they fit and a digest of what they say.
"""

from __future__ import annotations

import hashlib
import math
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from levit_deploy.errors import DeployError
from levit_deploy.models.checkpoint_files import read_tensors
from levit_deploy.models.images import (
    ORIGINAL_PREPROCESSING,
    TIMM_PREPROCESSING,
    Preprocessing,
)
from levit_deploy.models.key_names import Origin, detect_origin, module_names
from levit_deploy.models.reference import Levit, attention_bias_indices
from levit_deploy.models.spec import FAMILY, STEM_STRIDE, ModelSpec

# In a state_dict and yet not weights: derived from the grid, and a counter of training steps.
INDICES = "attention_bias_idxs"
COUNTER = "num_batches_tracked"

MAX_GRID = 256  # 4096 px: a larger bias table is taken for a damaged file


@dataclass(frozen=True)
class Checkpoint:
    """Weights of one LeViT.

    `spec`: class count, image size and heads as the weights have them. `state`: every parameter
    and BatchNorm statistic, finite float32, under the original repository's names. `digest`:
    hexadecimal SHA-256 of names, shapes and values, the same whichever form they came in.
    `preprocessing`: how their origin makes model inputs of photos. `source`: where they are from.
    """

    spec: ModelSpec
    state: Mapping[str, Tensor]
    origin: Origin
    digest: str
    preprocessing: Preprocessing
    source: str

    def build(self) -> Levit:
        """The reference module with these weights, in evaluation mode."""
        module = Levit(self.spec)
        module.load_state_dict(dict(self.state), strict=False)  # all but indices and counters
        return module


@dataclass(frozen=True)
class _Slot:
    """A place in the model for one tensor: its canonical name and its shape."""

    name: str
    shape: tuple[int, ...]

    @property
    def is_weight(self) -> bool:
        return not self.name.endswith((INDICES, COUNTER))


def load_checkpoint(path: Path, spec: ModelSpec) -> Checkpoint:
    """Read the weights of the variant `spec` from a file or a `save_pretrained` folder.

    Class count, image size and number of heads follow the checkpoint; all else must be as `spec`
    says. Raises DeployError, naming tensors as the file does, if it cannot be read, is another
    architecture or variant, or holds values that are not finite.
    """
    tensors = read_tensors(path)
    origin = detect_origin(tensors)
    if origin is None:
        raise DeployError(
            f"`{path}` is not a LeViT checkpoint: it holds {_some(tensors)}",
            hint="pass weights in the form of the original repository, timm or transformers",
        )
    if origin is Origin.TIMM:
        tensors = {name: _without_unit_kernel(tensor) for name, tensor in tensors.items()}
    fitted = _fit(spec, tensors, origin)
    slots = _slots(fitted, origin)
    misfits = _misfits(tensors, slots)
    if misfits:
        for other in FAMILY.values():
            if not _misfits(tensors, _slots(_fit(other, tensors, origin), origin)):
                file = shlex.quote(str(path))
                raise DeployError(
                    f"`{path}` holds {other.name}, not {spec.name}",
                    hint=f"levit-deploy compile --target host {other.name} --weights {file}",
                )
        raise DeployError(
            f"`{path}` does not fit {spec.name}: {'; '.join(misfits)}",
            hint="see the variants with `levit-deploy models`; layers must be as in the paper",
        )
    _check_values(path, tensors, slots)
    state = {
        slot.name: tensors[key].to(torch.float32).contiguous()
        for key, slot in slots.items()
        if slot.is_weight
    }
    preprocessing = TIMM_PREPROCESSING if origin is Origin.TIMM else ORIGINAL_PREPROCESSING
    return Checkpoint(fitted, state, origin, weights_digest(state), preprocessing, str(path))


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over the tensors in the order of their names: name, shape, little-endian float32."""
    digest = hashlib.sha256(b"levit weights 1\n")
    for name in sorted(state):
        values = state[name].numpy().astype("<f4", copy=False)
        digest.update(f"{name} {values.shape}\n".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def _without_unit_kernel(weight: Tensor) -> Tensor:
    """timm's levit_conv_* keep linear weights (out, in) as 1x1 convolutions (out, in, 1, 1)."""
    is_linear = weight.ndim == 4 and weight.shape[2:] == (1, 1)
    return weight[:, :, 0, 0] if is_linear else weight


def _fit(spec: ModelSpec, tensors: Mapping[str, Tensor], origin: Origin) -> ModelSpec:
    """`spec` with the class count, image size and heads that the tensors have."""
    modules = module_names(replace(spec, distilled=True), origin)
    head = tensors.get(f"{modules['head.l']}.weight")
    if head is not None and head.ndim == 2 and head.shape[0] > 0:
        spec = replace(spec, classes=head.shape[0])
    biases = tensors.get(f"{modules['blocks.0.m']}.attention_biases")
    if biases is not None and biases.ndim == 2:
        grid = math.isqrt(biases.shape[1])  # one bias per offset: grid ** 2
        if 0 < grid <= MAX_GRID:
            spec = replace(spec, image_size=grid * STEM_STRIDE)
    return replace(spec, distilled=f"{modules['head_dist.l']}.weight" in tensors)


def _slots(spec: ModelSpec, origin: Origin) -> dict[str, _Slot]:
    """Every tensor of the model by the name that a file from `origin` gives it."""
    modules = module_names(spec, origin)
    with torch.device("meta"):
        state = Levit(spec).state_dict()
    slots = {}
    for name, tensor in state.items():
        module, _, own = name.rpartition(".")
        slots[f"{modules[module]}.{own}"] = _Slot(name, tuple(tensor.shape))
    return slots


def _misfits(tensors: Mapping[str, Tensor], slots: Mapping[str, _Slot]) -> list[str]:
    """What keeps the tensors from filling the slots, in words; empty if nothing."""
    missing = [key for key, slot in slots.items() if slot.is_weight and key not in tensors]
    unexpected = [key for key in tensors if key not in slots]
    misshapen = [
        f"{key} is {tuple(tensors[key].shape)}, expected {slot.shape}"
        for key, slot in slots.items()
        if key in tensors and tuple(tensors[key].shape) != slot.shape
    ]
    return [
        f"{len(keys)} {what}: {_some(keys)}"
        for what, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", misshapen),
        )
        if keys
    ]


def _check_values(path: Path, tensors: Mapping[str, Tensor], slots: Mapping[str, _Slot]) -> None:
    """Raise DeployError for numbers that no trained model has."""
    retrain = "the training run diverged or the file is damaged: use an earlier checkpoint"
    weights = [key for key, slot in slots.items() if slot.is_weight]
    whole = [key for key in weights if not tensors[key].is_floating_point()]
    if whole:
        raise DeployError(
            f"`{path}` has weights that are not floating point: {_some(whole)}",
            hint="save the weights before they are quantized",
        )
    endless = [key for key in weights if not torch.isfinite(tensors[key].to(torch.float32)).all()]
    if endless:
        raise DeployError(f"`{path}` has NaN or infinite values in {_some(endless)}", hint=retrain)
    negative = [k for k in weights if k.endswith("running_var") and (tensors[k] < 0).any()]
    if negative:
        raise DeployError(f"`{path}` has negative variances in {_some(negative)}", hint=retrain)
    reordered = [
        key
        for key, slot in slots.items()
        if slot.name.endswith(INDICES)
        and key in tensors
        and not torch.equal(tensors[key], _bias_indices(slot))
    ]
    if reordered:
        raise DeployError(
            f"`{path}` orders its attention biases otherwise: {_some(reordered)}",
            hint="save the model again with the code of its origin, unmodified",
        )


def _bias_indices(slot: _Slot) -> Tensor:
    queries, keys = slot.shape
    return attention_bias_indices(math.isqrt(keys), stride=1 if queries == keys else 2)


def _some(keys: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    names = list(keys)
    shown = ", ".join(f"`{name}`" for name in names[:3]) or "nothing"
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")
