"""A checkpoint file of any kind -> its named tensors, without executing anything in it.

Kinds are told by content, not by extension: safetensors, PyTorch zip archives and PyTorch's older
pickles, the latter two through `torch.load(weights_only=True)` alone.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from levit_deploy.errors import DeployError

# In a folder that `save_pretrained` wrote, the safe format first.
FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
# Keys under which training scripts keep the state_dict: the original repository's, timm's.
CONTAINERS = ("model", "state_dict")
RESAVE_HINT = "save the weights alone: torch.save({'model': model.state_dict()}, 'weights.pth')"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint file, or of a folder that holds one, on the CPU, as stored.

    Raises DeployError if it cannot be read, is damaged, or holds anything but named tensors.
    """
    file = _file_in(path) if path.is_dir() else path
    try:
        with file.open("rb") as stream:
            start = stream.read(64)
    except OSError as error:
        raise DeployError(
            f"cannot read `{file}`: {error.strerror}", hint="pass a checkpoint: --weights FILE"
        ) from error
    if start[8:9] == b"{":
        return _read_safetensors(file)
    if start.startswith((b"PK\x03\x04", b"\x80")):
        return _read_pytorch(file)
    if start.startswith(b"version https://git-lfs"):
        raise DeployError(
            f"`{file}` is a Git LFS pointer, not the weights", hint="run `git lfs pull` there"
        )
    raise DeployError(
        f"`{file}` is {'empty' if not start else 'neither a PyTorch nor a safetensors file'}",
        hint="pass a .pth, .bin or .safetensors checkpoint: --weights FILE",
    )


def _file_in(folder: Path) -> Path:
    for name in FOLDER_FILES:
        if (folder / name).is_file():
            return folder / name
    raise DeployError(
        f"`{folder}` holds neither of {', '.join(FOLDER_FILES)}",
        hint="write one with model.save_pretrained(...), or pass the file itself",
    )


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(file)
    except Exception as error:  # any kind: the content is not ours
        raise _damaged(file) from error


def _read_pytorch(file: Path) -> dict[str, Tensor]:
    try:
        # Training scripts save their arguments beside the weights: a Namespace is data only.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # any kind: the content is not ours
        # "Unsupported global: GLOBAL posix.system was not an allowed global by default."
        refused = re.search(r"Unsupported \w+: (?:GLOBAL )?(\S+)|GLOBAL (\S+)", str(error))
        if refused is None:
            raise _damaged(file) from error
        raise DeployError(
            f"`{file}` holds more than tensors: loading it would run `{refused[1] or refused[2]}`",
            hint=RESAVE_HINT,
        ) from error
    for key in CONTAINERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict):
        raise DeployError(
            f"`{file}` holds a `{type(content).__name__}`, not named tensors", hint=RESAVE_HINT
        )
    for name, value in content.items():
        if not isinstance(name, str) or not _is_plain(value):
            raise DeployError(f"`{name}` in `{file}` is not a plain tensor", hint=RESAVE_HINT)
    return dict(content)


def _is_plain(value: object) -> bool:
    """Whether it is a tensor that holds its numbers: not sparse, quantized or without storage."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
    )


def _damaged(file: Path) -> DeployError:
    return DeployError(
        f"`{file}` is damaged or cut off, or not a checkpoint",
        hint="download or save it again",
    )
