"""The content of a file -> the one LeViT in it, out of the wrappers that training puts around it.

A wrapper is a dictionary around the tensors (`state_dict`, `model_ema`, ...) or a prefix in front
of their names (`module.`, `model.`, `_orig_mod.`, nested): whatever stands before the first
convolution of a stem. Several LeViTs in one file are told apart by both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from levit_deploy.errors import DeployError
from levit_deploy.models.key_names import SCHEMES, Layer, Origin, layer_names

MOST_NESTED = 3  # dictionaries in dictionaries
_IS_EMA = re.compile(r"(^|[^a-z])ema([^a-z]|$)")
# transformers' classifiers keep the network in `levit`, LevitModel does not.
_INNER = {Origin.TRANSFORMERS: "levit."}

Content = Mapping[str, object]  # tensors, other values, and dictionaries of such


@dataclass(frozen=True)
class StateDict:
    """One LeViT in a file.

    `key`: what chooses it: the dictionaries that hold it, and the prefix of its names. `tensors`:
    by the names of `origin`, without the prefix. `beside`: the other names in its dictionary.
    """

    key: str
    origin: Origin
    prefix: str
    tensors: dict[str, Tensor]
    beside: tuple[str, ...]

    @property
    def is_ema(self) -> bool:
        """Whether its name says that it is the moving average of the weights in training."""
        return bool(_IS_EMA.search(self.key.lower()))


def find_state_dicts(content: Content) -> list[StateDict]:
    """Every LeViT in the file, in its order."""
    return list(_in(content, ""))


def choose_state_dict(
    file: str, found: list[StateDict], key: str | None
) -> tuple[StateDict, str | None]:
    """The one that `key` names, or the only one, or the moving average, as timm evaluates.

    The second value says what was taken where there is a choice. Raises DeployError if nothing
    decides.
    """
    keys = ", ".join(f"`{each.key}`" for each in found)
    if key is not None:
        wanted = key.strip(".")
        chosen = [each for each in found if f"{each.key}.".startswith(f"{wanted}.")]
        if len(chosen) != 1:
            raise DeployError(
                f"{len(chosen) or 'no'} LeViTs under the key `{key}` in `{file}`",
                hint=f"its weights are under {keys}" if found[0].key else "leave out --key",
            )
        return chosen[0], None
    if len(found) == 1:
        return found[0], None
    averages = [each for each in found if each.is_ema]
    if len(averages) != 1:
        raise DeployError(
            f"`{file}` holds {len(found)} LeViTs: {keys}",
            hint=f"choose: --key {found[0].key or found[-1].key}",
        )
    others = ", ".join(f"--key {each.key}" for each in found if each is not averages[0])
    return averages[0], f"weights of `{averages[0].key}` (moving average); others: {others}"


def _in(content: Content, path: str, depth: int = 0) -> Iterator[StateDict]:
    tensors = {
        name: value.detach()
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    for origin, prefix in _stems(tensors):
        inner = _INNER.get(origin, "")
        own = {
            name.removeprefix(prefix).removeprefix(inner): tensor
            for name, tensor in tensors.items()
            if name.startswith(prefix)
        }
        if any(layer.layer is Layer.BIASES for layer in layer_names(own, origin)):
            beside = tuple(name for name in tensors if not name.startswith(prefix))
            key = ".".join(part for part in (path, prefix.rstrip(".")) if part)
            yield StateDict(key, origin, prefix, own, beside)
    if depth < MOST_NESTED:
        for name, value in content.items():
            if isinstance(value, Mapping):
                yield from _in(value, f"{path}.{name}".lstrip("."), depth + 1)


def _stems(names: Mapping[str, Tensor]) -> Iterator[tuple[Origin, str]]:
    """The origin and prefix of every first convolution."""
    for origin, scheme in SCHEMES.items():
        for name in names:
            for weight in scheme.first_weights:
                prefix = name.removesuffix(weight)
                if prefix != name and (not prefix or prefix.endswith(".")):
                    inner = _INNER.get(origin, "")
                    yield origin, prefix.removesuffix(inner) if inner else prefix
