"""Named tensors of any origin -> every weight under its canonical name.

    linear.weight, bn.{weight, bias, running_mean, running_var}   as trained
    {weight, bias}, or linear.{weight, bias}                      fused by its origin

A fused layer gets a BatchNorm that changes nothing, so that what follows knows one form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from levit_deploy.models.key_names import (
    CANONICAL,
    SCHEMES,
    Layer,
    LayerName,
    Origin,
    layer_names,
)

# In a state_dict and yet not weights: derived from the grid, training steps, thop's counts.
INDICES = "attention_bias_idxs"
COUNTERS = ("num_batches_tracked", "total_ops", "total_params")
STATISTICS = ("weight", "bias", "running_mean", "running_var")
BATCH_NORM_EPS = 1e-5  # torch's default, which all three origins keep


@dataclass(frozen=True)
class Canonical:
    """What a checkpoint says, under canonical names.

    `state`: weights as stored. `own_names`: canonical tensor -> its name in the file. `indices`:
    orders of biases by their names in the file, where it has them. `missing`: own names without
    which a layer that is there is not whole. `strange`: names in the LeViT that belong to none of
    its layers. `outside`: names beside the LeViT.
    """

    state: dict[str, Tensor]
    own_names: dict[str, str]
    indices: dict[str, Tensor]
    missing: tuple[str, ...]
    strange: tuple[str, ...]
    outside: tuple[str, ...]

    def without_heads(self) -> Canonical:
        """The body alone."""
        state = {name: tensor for name, tensor in self.state.items() if not name.startswith("head")}
        return replace(self, state=state)


def canonical(tensors: Mapping[str, Tensor], origin: Origin) -> Canonical:
    """`tensors` by the names of `origin`, without any prefix, not even transformers' `levit.`."""
    state: dict[str, Tensor] = {}
    own_names: dict[str, str] = {}
    indices: dict[str, Tensor] = {}
    missing: list[str] = []
    used: set[str] = set()
    for layer in layer_names(tensors, origin):
        for name, own in _tensor_names(layer, tensors, origin):
            used.add(own)
            if own in tensors:
                state[name] = _without_unit_kernel(tensors[own], layer)
                own_names[name] = own
            else:
                missing.append(own)
        if layer.layer is not Layer.BIASES:
            state |= _neutral_batch_norm(layer, state)
        elif f"{layer.own}.{INDICES}" in tensors:
            own = f"{layer.own}.{INDICES}"
            indices[own] = tensors[own]
    scheme = SCHEMES[origin]
    left = [
        name for name in tensors if name not in used and not name.endswith((INDICES, *COUNTERS))
    ]
    strange = [name for name in left if name.partition(".")[0] in scheme.roots]
    outside = [name for name in left if name not in set(strange)]
    return Canonical(state, own_names, indices, tuple(missing), tuple(strange), tuple(outside))


def _tensor_names(
    layer: LayerName, tensors: Mapping[str, Tensor], origin: Origin
) -> Iterator[tuple[str, str]]:
    """Canonical and own name of each tensor that the layer must have, as it is trained or fused."""
    if layer.layer is Layer.BIASES:
        yield f"{layer.canonical}.attention_biases", f"{layer.own}.attention_biases"
        return
    scheme = SCHEMES[origin]
    weight = f"{layer.canonical}.{CANONICAL.weights[layer.layer]}"
    own_weight = f"{layer.own}.{scheme.weights[layer.layer]}"
    own_norm = f"{layer.own}.{scheme.batch_norm}"
    if f"{layer.own}.weight" in tensors:
        own_weight = layer.own
    has_norm = any(f"{own_norm}.{name}" in tensors for name in STATISTICS)
    yield f"{weight}.weight", f"{own_weight}.weight"
    if has_norm:
        for name in STATISTICS:
            yield f"{layer.canonical}.bn.{name}", f"{own_norm}.{name}"
    if layer.layer is Layer.HEAD:
        yield f"{weight}.bias", f"{own_weight}.bias"
    elif not has_norm:
        yield f"{layer.canonical}.bn.bias", f"{own_weight}.bias"


def _neutral_batch_norm(layer: LayerName, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a fused layer's BatchNorm lacks to change nothing, or to add its bias alone.

    sqrt(running_var + eps) is 1 to half a rounding of float32, so that the fold in float64 gives
    back the weights to the bit.
    """
    weight = state.get(f"{layer.canonical}.{CANONICAL.weights[layer.layer]}.weight")
    if weight is None or weight.ndim < 2 or f"{layer.canonical}.bn.weight" in state:
        return {}
    channels = weight.shape[1 if layer.layer is Layer.HEAD else 0]
    norm = f"{layer.canonical}.bn"
    neutral = {
        f"{norm}.weight": torch.ones(channels),
        f"{norm}.running_mean": torch.zeros(channels),
        f"{norm}.running_var": torch.full((channels,), 1 - BATCH_NORM_EPS),
    }
    if layer.layer is Layer.HEAD:
        neutral[f"{norm}.bias"] = torch.zeros(channels)
    return neutral


def _without_unit_kernel(weight: Tensor, layer: LayerName) -> Tensor:
    """timm's levit_conv_* keep linear weights (out, in) as 1x1 convolutions (out, in, 1, 1)."""
    is_linear = layer.layer is Layer.LINEAR and weight.ndim == 4
    return weight[:, :, 0, 0] if is_linear and weight.shape[2:] == (1, 1) else weight
