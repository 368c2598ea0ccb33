"""Pictures of any size, one at a time: image files in a folder, or an array in a .npz file."""

from __future__ import annotations

import hashlib
import os
import shlex
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from levit_deploy.errors import DeployError
from levit_deploy.files import open_regular
from levit_deploy.models.pictures import GREY, RGB, as_image, as_pixels

MAX_FILE_BYTES = 1 << 30
MAX_ASPECT = 256  # the longer side to the shorter: resizing keeps it, and takes memory for both

Picture = NDArray[np.uint8]  # (height, width, channels), RGB or grey

IMAGE_SUFFIXES = frozenset({
    ".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg",
    ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
})  # fmt: skip


class BrokenPictureError(DeployError):
    """A file that cannot be decoded; the message names it."""


class Pictures(ABC):
    """A sequence in fixed order. `labels`: (len,) class indices, or None if there are none.

    `class_names`: what the classes are called, by index; empty if that is not known. `notes`: what
    was left out, in sentences.
    """

    labels: NDArray[np.int64] | None
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def picture(self, index: int) -> Picture:
        """Decode one; raises BrokenPictureError."""

    @abstractmethod
    def name(self, index: int) -> str:
        """What people call it: the path in the folder, or `#index`."""

    @abstractmethod
    def content(self, index: int) -> bytes:
        """What the digest of the set is made of: the file, or the pixels with their shape."""


class FolderPictures(Pictures):
    """Every image file below a folder, in the order of their paths; links are followed.

    If the folder holds one folder a class, the classes are numbered in the order of their names,
    empty ones too, and image files beside them are left out. Decoded as `as_pixels` does; `exif`:
    turned as the EXIF tag says. Raises DeployError if there is no image file, or if a folder cannot
    be read.
    """

    def __init__(self, folder: Path, *, channels: int = RGB, exif: bool = False) -> None:
        found = sorted((path.relative_to(folder) for path in _files(folder)), key=Path.as_posix)
        names = [name for name in found if _is_image(name)]
        self._folder, self._channels, self._exif = folder, channels, exif
        if not names:
            raise DeployError(
                f"no image files in `{folder}`",
                hint=f"put {', '.join(sorted(IMAGE_SUFFIXES))} there, or use --data demo",
            )
        self.labels = None
        inside = [name for name in names if len(name.parts) > 1]
        stray = [name for name in names if len(name.parts) == 1]
        if len(inside) == len(names) or len({name.parts[0] for name in inside}) > 1:
            tops = sorted(path.name for path in folder.iterdir() if _is_class(path))
            numbers = {top: number for number, top in enumerate(tops)}
            self.labels = np.array([numbers[name.parts[0]] for name in inside])
            self.class_names = tuple(tops)
            names, empty = inside, sorted(set(tops) - {name.parts[0] for name in inside})
            others = [name for name in found if len(name.parts) > 1 and not _is_known(name)]
            self.notes = (
                *_note("beside the folders of classes, left out", stray),
                *_note("no image files, left out", others),
                *_note("without image files", empty),
            )
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        return self._names[index].as_posix()

    def picture(self, index: int) -> Picture:
        path = self._folder / self._names[index]
        try:
            with open_regular(path) as file, Image.open(file) as image:
                if os.fstat(file.fileno()).st_size > MAX_FILE_BYTES:
                    raise ValueError(f"more than {MAX_FILE_BYTES} bytes")
                _check_aspect(*image.size)
                upright = ImageOps.exif_transpose(image) if self._exif else image
                return as_pixels(upright, self._channels)
        except Exception as error:  # any kind: the content is not ours
            raise BrokenPictureError(
                f"cannot decode `{path}`: {error}",
                hint="remove the file, or leave such files out with --skip-broken",
            ) from error

    def content(self, index: int) -> bytes:
        with open_regular(self._folder / self._names[index]) as file:
            return file.read(MAX_FILE_BYTES)


class ArrayPictures(Pictures):
    """`images` uint8 (n, height, width, 3) and, if there are any, `labels` (n,).

    Where `channels` is 1 they are made grey, if they are not grey already: (n, height, width, 1).
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64] | None,
        class_names: tuple[str, ...] = (),
        channels: int = RGB,
    ) -> None:
        self._images, self._channels = images, channels
        self.labels, self.class_names = labels, class_names

    @staticmethod
    def load(file: Path, channels: int = RGB) -> ArrayPictures:
        """Read a .npz file; raises DeployError if it is damaged or holds anything else."""
        shapes = {3: "(n, height, width, 3)"}
        if channels == GREY:
            shapes[1] = "(n, height, width, 1)"
        expected = f"uint8 {' or '.join(shapes.values())}"
        hint = f"np.savez(FILE, images={expected} in RGB order)"
        try:
            with open_regular(file) as stream:
                if not zipfile.is_zipfile(stream):  # else numpy takes it for another format
                    raise ValueError("not a .npz file, or cut off")
                stream.seek(0)
                with np.load(stream) as data:
                    if "images" not in data:
                        raise DeployError(f"`{file}` has no array `images`", hint=hint)
                    images, labels = np.asarray(data["images"]), data.get("labels")
            if images.ndim == 4 and images.size:
                _check_aspect(*images.shape[1:3])
        except DeployError:
            raise
        except Exception as error:  # any kind: the content is not ours
            raise DeployError(f"cannot read `{file}`: {error}", hint=hint) from error
        sized = images.ndim == 4 and images.shape[3] in shapes and 0 not in images.shape[1:]
        if images.dtype != np.uint8 or not sized:
            raise DeployError(
                f"`images` in `{file}` is {images.dtype} {images.shape}, expected {expected}",
                hint=hint,
            )
        if labels is None:
            return ArrayPictures(images, None, channels=channels)
        if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
            raise DeployError(
                f"`labels` in `{file}` is {labels.dtype} {labels.shape}, "
                f"expected integers ({len(images)},)",
                hint="one class index for each image, or no `labels` at all",
            )
        return ArrayPictures(images, labels.astype(np.int64), channels=channels)

    def __len__(self) -> int:
        return len(self._images)

    def name(self, index: int) -> str:
        return f"#{index}"

    def picture(self, index: int) -> Picture:
        picture: Picture = self._images[index]
        return as_pixels(as_image(picture), self._channels)

    def content(self, index: int) -> bytes:
        picture: Picture = self._images[index]
        return f"{picture.shape}\n".encode() + picture.tobytes()


def digest(pictures: Pictures, indices: list[int]) -> str:
    """Hexadecimal SHA-256 over the content of some pictures, in order."""
    whole = set_digest()
    for index in indices:
        whole.update(content_digest(pictures, index))
    return whole.hexdigest()


def content_digest(pictures: Pictures, index: int) -> bytes:
    """SHA-256 of the content of one picture."""
    return hashlib.sha256(pictures.content(index)).digest()


def set_digest() -> hashlib._Hash:
    """SHA-256 of a set, to be updated with the `content_digest` of each picture in order."""
    return hashlib.sha256(b"levit pictures 1\n")


def _check_aspect(width: int, height: int) -> None:
    """Raise ValueError for what no camera makes, and no model is for."""
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ValueError(f"it is {width} x {height}: one side is over {MAX_ASPECT} times the other")


def _files(folder: Path) -> Iterator[Path]:
    """Everything below `folder` but folders and devices.

    Links are followed to folders elsewhere, to each once; what lies in `folder` has its own place.
    """

    def refuse(error: OSError) -> None:
        raise DeployError(
            f"cannot read `{error.filename}`: {error.strerror}",
            hint=f"chmod -R u+rX {shlex.quote(str(folder))}",
        ) from error

    root, followed = folder.resolve(), set[Path]()

    def is_new(path: Path) -> bool:
        if not path.is_symlink():
            return True
        target = path.resolve()
        if target in followed or target.is_relative_to(root) or root.is_relative_to(target):
            return False
        followed.add(target)
        return True

    for name, inner, names in os.walk(folder, onerror=refuse, followlinks=True):
        here = Path(name)
        inner[:] = [name for name in sorted(inner) if is_new(here / name)]
        for path in (here / name for name in names):
            if path.is_file() or path.is_symlink():  # a dangling link is a broken picture
                yield path


def _is_class(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _is_image(name: Path) -> bool:
    hidden = any(part.startswith(".") for part in name.parts)
    return name.suffix.lower() in IMAGE_SUFFIXES and not hidden


def _is_known(name: Path) -> bool:
    """Whether it is an image, or hidden, as what desktops leave behind."""
    return _is_image(name) or any(part.startswith(".") for part in name.parts)


def _note(what: str, names: Sequence[Path | str]) -> Iterator[str]:
    """How many there are of what, and the first few."""
    if names:
        more = ", ..." if len(names) > 3 else ""
        yield f"{what}: {len(names)} ({', '.join(map(str, names[:3]))}{more})"
