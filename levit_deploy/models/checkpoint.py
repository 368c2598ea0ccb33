"""Checkpoint: trained weights under canonical names, whichever project wrote them, and their card.

original | timm | transformers, any float type, in any wrapper, fused or not -> names, shapes and
values checked -> float32 under the original repository's names, with the network that they are of,
what stands beside them, and a digest of what they say.
"""

from __future__ import annotations

import hashlib
import math
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from levit_deploy.errors import DeployError
from levit_deploy.models.architecture import ShapeError, spec_of
from levit_deploy.models.canonical import Canonical, canonical
from levit_deploy.models.card import ASSUMED, ModelCard, default_card
from levit_deploy.models.checkpoint_files import (
    RESAVE_HINT,
    is_plain,
    read_content,
)
from levit_deploy.models.key_names import Origin
from levit_deploy.models.preprocessing import Preprocessing
from levit_deploy.models.reference import Levit, attention_bias_indices
from levit_deploy.models.side_files import SideFiles
from levit_deploy.models.spec import FAMILY, Activation, ModelSpec
from levit_deploy.models.state_dicts import StateDict, choose_state_dict, find_state_dicts

if TYPE_CHECKING:
    from levit_deploy.models.foreign_onnx.model import ForeignModel

PICTURE_CHANNELS = (1, 3)


@dataclass(frozen=True)
class Checkpoint:
    """Weights of one LeViT.

    `spec`: the network, with the card's normalization. `state`: every parameter and BatchNorm
    statistic, finite float32, under the original repository's names. `card`: what stood beside the
    weights. `digest`: hexadecimal SHA-256 of names, shapes and values, the same whichever form they
    came in. `source`: where they are from. `notes`: what was chosen or left out, in sentences.
    `foreign`: another tool's ONNX file that they were read from: what it computes is the truth, and
    its digest theirs.
    """

    spec: ModelSpec
    state: Mapping[str, Tensor]
    card: ModelCard
    digest: str
    source: str
    notes: tuple[str, ...] = ()
    foreign: ForeignModel | None = None

    @property
    def name(self) -> str:
        """What the network is called."""
        return self.spec.name

    @property
    def origin(self) -> Origin:
        """Whose code wrote them."""
        return self.card.origin

    @property
    def preprocessing(self) -> Preprocessing:
        """How photos become model-sized pictures."""
        return self.card.preprocessing

    def build(self) -> Levit:
        """The reference module with these weights, in evaluation mode."""
        module = Levit(self.spec)
        module.load_state_dict(dict(self.state), strict=False)  # all but indices and counters
        return module

    def with_card(self, card: ModelCard) -> Checkpoint:
        """The same weights, meant otherwise."""
        spec = replace(self.spec, normalization=card.normalization)
        return replace(self, spec=spec, card=card)


def load_checkpoint(
    path: Path, spec: ModelSpec | None = None, *, key: str | None = None, features: bool = False
) -> Checkpoint:
    """Read the weights in a file or in a folder of transformers or timm.

    `spec`: the variant that they must be, but for class count, image size, channels of the input
    and heads; None: whatever they are. `key`: which weights of several. `features`: leave the heads
    out. Raises DeployError, naming tensors as the file does, if they cannot be read, are another
    architecture or variant, hold values that are not finite, or if a file beside them says what
    cannot be followed.
    """
    content = read_content(path)
    found = find_state_dicts(content)
    if not found:
        raise DeployError(
            f"`{path}` is not a LeViT checkpoint: it holds {_some(content)}",
            hint="pass weights in the form of the original repository, timm or transformers",
        )
    chosen, choice = choose_state_dict(str(path), found, key)
    beside = SideFiles.beside(path, content, chosen.origin)
    checkpoint = checkpoint_of(path, chosen, beside, spec, features=features)
    return replace(checkpoint, notes=(choice, *checkpoint.notes)) if choice else checkpoint


def checkpoint_of(
    path: Path,
    chosen: StateDict,
    beside: SideFiles,
    spec: ModelSpec | None,
    *,
    features: bool,
    activation: Activation | None = None,
) -> Checkpoint:
    """One LeViT of a file, checked, with what is beside it; `activation`: if the file says it.

    Raises DeployError as `load_checkpoint` does.
    """
    weights = canonical(chosen.tensors, chosen.origin)
    _check_whole(path, weights)
    outside = [*weights.outside, *chosen.beside]
    if features:
        weights = weights.without_heads()
    else:
        _check_head(path, weights, outside)
    fitted, source = _spec(path, weights, spec, activation or beside.activation())
    _check_values(path, weights)
    state = {name: tensor.float().contiguous() for name, tensor in weights.state.items()}
    card = default_card(beside.origin, fitted).stated(source, activation=fitted.activation)
    card = beside.state(card, fitted)
    notes = (f"left out, as no part of the LeViT: {_some(outside)}",) if outside else ()
    bare = Checkpoint(fitted, state, card, weights_digest(state), str(path), notes)
    return bare.with_card(card)


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over the tensors in the order of their names: name, shape, little-endian float32."""
    digest = hashlib.sha256(b"levit weights 1\n")
    for name in sorted(state):
        values = state[name].numpy().astype("<f4", copy=False)
        digest.update(f"{name} {values.shape}\n".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def _check_whole(path: Path, weights: Canonical) -> None:
    """Raise DeployError unless every layer is whole, and nothing is among them that is none."""
    if weights.missing:
        raise DeployError(
            f"`{path}` is not whole: it lacks {_some(weights.missing)}", hint=RESAVE_HINT
        )
    if weights.strange:
        raise DeployError(
            f"`{path}` holds {_some(weights.strange)}, which no LeViT has",
            hint="layers must be those of the original repository, timm or transformers",
        )
    empty = [name for name, tensor in weights.state.items() if not is_plain(tensor)]
    if empty:
        raise DeployError(
            f"{_own(weights, empty)} in `{path}` is not a plain tensor", hint=RESAVE_HINT
        )


def _check_head(path: Path, weights: Canonical, outside: list[str]) -> None:
    """Raise DeployError if the classifier is not the LeViT's own, so that it would be lost."""
    heads = [name for name in outside if name.endswith(".weight")]
    if heads and "head.l.weight" not in weights.state:
        raise DeployError(
            f"`{path}` has no classifier that is the LeViT's own; {_some(heads)} is beside it",
            hint="save it as the model's head, or compile without: --output features",
        )


def _spec(
    path: Path, weights: Canonical, asked: ModelSpec | None, activation: Activation | None
) -> tuple[ModelSpec, str]:
    """The network that the weights are of, and where its activation came from.

    Raises DeployError if it is none, not the one that was asked for, or not for pictures.
    """
    try:
        fitted = spec_of(weights.state, activation or (asked.activation if asked else None))
    except ShapeError as error:
        name = str(error)
        shape = tuple(weights.state[name].shape)
        raise _misfit(path, f"{_own(weights, [name])} is {shape}") from error
    with torch.device("meta"):
        shapes = {name: tuple(t.shape) for name, t in Levit(fitted).state_dict().items()}
    misshapen = [
        f"{_own(weights, [name])} is {tuple(tensor.shape)}, expected {shapes[name]}"
        for name, tensor in weights.state.items()
        if tuple(tensor.shape) != shapes[name]
    ]
    if misshapen:
        raise _misfit(path, "; ".join(misshapen[:3]))
    if asked and fitted.layout != asked.layout:
        raise _other_variant(path, fitted, asked)
    if fitted.in_chans not in PICTURE_CHANNELS:
        raise DeployError(
            f"`{path}` takes {fitted.in_chans} channels",
            hint="pictures have 3 channels (RGB) or 1 (grey)",
        )
    if asked:
        return replace(fitted, name=asked.name), f"{asked.name}, as asked for"
    if fitted.name in FAMILY:
        return fitted, f"{fitted.name}, as published"
    return fitted, f"{ASSUMED}nothing names another"


def _misfit(path: Path, how: str) -> DeployError:
    return DeployError(
        f"the shapes in `{path}` are not a LeViT's: {how}",
        hint="save the model again with the code of its origin, unmodified",
    )


def _other_variant(path: Path, held: ModelSpec, asked: ModelSpec) -> DeployError:
    file = shlex.quote(str(path))
    if held.name in FAMILY:
        return DeployError(
            f"`{path}` holds {held.name}, not {asked.name}",
            hint=f"levit-deploy compile --target host {held.name} --weights {file}",
        )
    fields = ("stem_stride", "channels", "depths", "heads", "key_dim")
    pairs = [(field, getattr(held, field), getattr(asked, field)) for field in fields]
    how = [f"{field} {had}, not {wanted}" for field, had, wanted in pairs if had != wanted]
    return DeployError(
        f"`{path}` holds another LeViT than {asked.name}: {'; '.join(how) or 'sizes of layers'}",
        hint="leave out the model's name: it is read from the weights",
    )


def _check_values(path: Path, weights: Canonical) -> None:
    """Raise DeployError for numbers that no trained model has."""
    retrain = "the training run diverged or the file is damaged: use an earlier checkpoint"
    state = weights.state
    whole = [name for name, tensor in state.items() if not tensor.is_floating_point()]
    if whole:
        raise DeployError(
            f"`{path}` has weights that are not floating point: {_own(weights, whole)}",
            hint="save the weights before they are quantized",
        )
    endless = [name for name, tensor in state.items() if not tensor.float().isfinite().all()]
    if endless:
        raise DeployError(
            f"`{path}` has NaN or infinite values in {_own(weights, endless)}", hint=retrain
        )
    negative = [n for n, t in state.items() if n.endswith("running_var") and (t < 0).any()]
    if negative:
        raise DeployError(
            f"`{path}` has negative variances in {_own(weights, negative)}", hint=retrain
        )
    reordered = [name for name, indices in weights.indices.items() if not _is_bias_order(indices)]
    if reordered:
        raise DeployError(
            f"`{path}` orders its attention biases otherwise: {_some(reordered)}",
            hint="save the model again with the code of its origin, unmodified",
        )


def _is_bias_order(indices: Tensor) -> bool:
    if indices.ndim != 2:
        return False
    queries, keys = indices.shape
    ours = attention_bias_indices(math.isqrt(keys), stride=1 if queries == keys else 2)
    return torch.equal(indices, ours)


def _own(weights: Canonical, names: list[str]) -> str:
    """The first few of canonical names, as the file has them."""
    return _some(weights.own_names.get(name, name) for name in names)


def _some(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    every = list(names)
    shown = ", ".join(f"`{name}`" for name in every[:3]) or "nothing"
    return shown + (f" and {len(every) - 3} more" if len(every) > 3 else "")
