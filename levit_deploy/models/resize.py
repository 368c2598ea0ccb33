"""The same weights for smaller square pictures.

An attention has one bias for each offset between two tokens. A smaller grid has fewer offsets, all
of them among those that were trained; a larger one has some that were not.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from levit_deploy.errors import DeployError
from levit_deploy.models.checkpoint import Checkpoint, weights_digest
from levit_deploy.models.reference import Levit


def for_image_size(checkpoint: Checkpoint, image_size: int) -> Checkpoint:
    """The network for pictures of `image_size`, its biases those of the same offsets.

    Raises DeployError if the stem does not divide the size, or if it is larger than the weights'.
    """
    spec, trained = replace(checkpoint.spec, image_size=image_size), checkpoint.spec.image_size
    if image_size > trained:
        raise DeployError(
            f"the weights are for {trained} px: at `{image_size}` tokens are further apart than "
            "any whose bias was trained",
            hint=f"choose a size of at most {trained}, a multiple of {spec.stem_stride}, or train "
            "at the larger one",
        )
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in Levit(spec).state_dict().items()}
    state = {
        name: _cut(tensor, math.isqrt(shapes[name][1])) if name.endswith("_biases") else tensor
        for name, tensor in checkpoint.state.items()
    }
    resized = replace(
        checkpoint, spec=spec, state=state, digest=weights_digest(state), foreign=None
    )
    return resized.with_card(checkpoint.card.stated("--size", image_size=image_size))


def _cut(biases: Tensor, grid: int) -> Tensor:
    """(heads, trained * trained) -> (heads, grid * grid): offsets below `grid` both ways."""
    trained = math.isqrt(biases.shape[1])
    return biases.view(-1, trained, trained)[:, :grid, :grid].flatten(1).contiguous()
