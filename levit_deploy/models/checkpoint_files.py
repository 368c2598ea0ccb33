"""A checkpoint file or folder of any kind -> its content, without executing anything in it.

Kinds are told by content, not by extension: safetensors, PyTorch zip archives and PyTorch's older
pickles, the latter two through `torch.load(weights_only=True)` alone.
"""

from __future__ import annotations

import argparse
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from levit_deploy.errors import DeployError
from levit_deploy.files import open_regular
from levit_deploy.records import read_json

ONNX_FILE = "model.onnx"  # as optimum calls it in a folder
# What `save_pretrained`, timm's `save_for_hf` and its training leave in a folder, best first.
FOLDER_FILES = ("model.safetensors", "pytorch_model.bin", "model_best.pth.tar")
INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SUFFIXES = (".bin", ".pt", ".pth", ".pth.tar", ".safetensors", ".ckpt")
RESAVE_HINT = "save the weights alone: torch.save(model.state_dict(), 'weights.pth')"

_NUMPY_SCALAR = cast(Callable[..., object], np.float64(0).__reduce__()[0])
# Values beside the weights, in training's own words: arguments, and metrics that numpy computed.
_PLAIN_VALUES: list[Callable[..., object] | tuple[Callable[..., object], str]] = [
    argparse.Namespace,
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
    np.dtypes.Int64DType,
    (_NUMPY_SCALAR, "numpy._core.multiarray.scalar"),
    (_NUMPY_SCALAR, "numpy.core.multiarray.scalar"),
]


def weights_files(path: Path) -> list[Path]:
    """The file itself, or the files in a folder that hold its weights.

    Raises DeployError if the folder has none, or if its index names one that is not there.
    """
    if not path.is_dir():
        return [path]
    for name in FOLDER_FILES[:2]:
        if (path / name).is_file():
            return [path / name]
    for name in INDEX_FILES:
        if (path / name).is_file():
            return _shards(path / name)
    if (path / FOLDER_FILES[2]).is_file():
        return [path / FOLDER_FILES[2]]
    others = [file for file in sorted(path.iterdir()) if file.name.endswith(SUFFIXES)]
    if len(others) == 1:
        return others
    raise DeployError(
        f"`{path}` holds neither of {', '.join(FOLDER_FILES)}"
        + (f", but {len(others)} other checkpoints" if others else ""),
        hint="pass the file itself: --weights FILE"
        if others
        else "write one with model.save_pretrained(...), or pass the file itself",
    )


def side_folder(path: Path) -> Path | None:
    """Where files that belong to the weights lie; None for a file that may lie anywhere."""
    if path.is_dir():
        return path
    return path.parent if path.name in FOLDER_FILES[:2] else None


def read_content(path: Path) -> dict[str, object]:
    """Tensors on the CPU as stored, other plain values, and dictionaries of such, by name.

    Raises DeployError if it cannot be read, is damaged, or would have to be executed.
    """
    content: dict[str, object] = {}
    for file in weights_files(path):
        content |= _read(file)
    return content


def is_checkpoint(file: Path) -> bool:
    """Whether the file begins as one of PyTorch's, safetensors' or ONNX's."""
    with open_regular(file) as stream:
        start = stream.read(9)
    return _is_safetensors(start) or _is_pytorch(start) or _is_onnx(start)


def onnx_file(path: Path) -> Path | None:
    """The file itself, or `model.onnx` of a folder without a checkpoint; None if it is no ONNX."""
    if path.is_dir():
        if any((path / name).exists() for name in (*FOLDER_FILES, *INDEX_FILES)):
            return None
        path /= ONNX_FILE
    if not path.is_file():
        return None
    with open_regular(path) as stream:
        return path if _is_onnx(stream.read(9)) else None


def is_plain(tensor: Tensor) -> bool:
    """Whether it holds its numbers: not nested, sparse, quantized, without storage, or one
    repeated."""
    return (
        not tensor.is_nested
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_quantized
        and tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size()
    )


def _shards(index: Path) -> list[Path]:
    hint = "download the whole folder again"
    content = read_json(index, hint=hint)
    places = content.get("weight_map") if isinstance(content, dict) else None
    files = list(places.values()) if isinstance(places, dict) else []
    if not files or not all(isinstance(file, str) for file in files):
        raise DeployError(f"`{index}` is damaged: it names no weights", hint=hint)
    names = sorted({Path(file).name for file in files})
    there = {path.name for path in index.parent.iterdir() if path.is_file()}
    lacking = [name for name in names if name not in there]
    if lacking:
        raise DeployError(f"`{index.parent}` lacks `{', '.join(lacking)}`", hint=hint)
    return [index.parent / name for name in names]


def _read(file: Path) -> dict[str, object]:
    try:
        with open_regular(file) as stream:
            start = stream.read(64)
    except OSError as error:
        raise DeployError(
            f"cannot read `{file}`: {error.strerror}", hint="pass a checkpoint: --weights FILE"
        ) from error
    if _is_safetensors(start):
        return _read_safetensors(file)
    if _is_pytorch(start):
        return _read_pytorch(file)
    if start.startswith(b"version https://git-lfs"):
        raise DeployError(
            f"`{file}` is a Git LFS pointer, not the weights", hint="run `git lfs pull` there"
        )
    raise DeployError(
        f"`{file}` is {'empty' if not start else 'neither a PyTorch nor a safetensors file'}",
        hint="pass a .pth, .bin or .safetensors checkpoint: --weights FILE",
    )


def _is_safetensors(start: bytes) -> bool:
    return start[8:9] == b"{"


def _is_onnx(start: bytes) -> bool:
    """A message of protobuf that begins with `ir_version`; safetensors begins with a length."""
    return start[:1] == b"\x08" and start[1:2] < b"\x20" and not _is_safetensors(start)


def _is_pytorch(start: bytes) -> bool:
    return start.startswith((b"PK\x03\x04", b"\x80"))


def _read_safetensors(file: Path) -> dict[str, object]:
    try:
        return dict(safetensors.torch.load_file(file))
    except Exception as error:  # any kind: the content is not ours
        raise _damaged(file) from error


def _read_pytorch(file: Path) -> dict[str, object]:
    _refuse_archives(file)
    try:
        with torch.serialization.safe_globals(_PLAIN_VALUES):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # any kind: the content is not ours
        # "Unsupported global: GLOBAL posix.system was not an allowed global by default."
        refused = re.search(r"Unsupported \w+: (?:GLOBAL )?(\S+)|GLOBAL (\S+)", str(error))
        if refused is None:
            raise _damaged(file) from error
        raise _executable(file, refused[1] or refused[2]) from error
    if not isinstance(content, Mapping):
        raise DeployError(
            f"`{file}` holds a `{type(content).__name__}`, not named tensors", hint=RESAVE_HINT
        )
    return dict(content)


def _refuse_archives(file: Path) -> None:
    """Raise DeployError for programs: they hold code beside the weights."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
    except (OSError, ValueError, zipfile.BadZipFile):
        return
    load = f"'{file}'"
    if "constants.pkl" in names:
        raise DeployError(
            f"`{file}` is a TorchScript archive, a program and not a checkpoint",
            hint=f"torch.save(torch.jit.load({load}).state_dict(), 'weights.pth')",
        )
    if "models/model.json" in names or "serialized_exported_program.json" in names:
        raise DeployError(
            f"`{file}` is an archive of torch.export, a program and not a checkpoint",
            hint=f"torch.save(torch.export.load({load}).state_dict, 'weights.pth')",
        )


def _executable(file: Path, refused: str) -> DeployError:
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(file))
    except Exception:  # any kind: older pickles are not looked into
        names = []
    if any(name.startswith("torch.nn.modules.") for name in [refused, *names]):
        return DeployError(
            f"`{file}` holds a whole module, and loading it would run `{refused}`",
            hint=RESAVE_HINT,
        )
    return DeployError(
        f"`{file}` holds more than tensors: loading it would run `{refused}`", hint=RESAVE_HINT
    )


def _damaged(file: Path) -> DeployError:
    return DeployError(
        f"`{file}` is damaged or cut off, or not a checkpoint",
        hint="download or save it again",
    )
