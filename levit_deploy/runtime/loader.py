"""A library in this process, as numpy has it: a Model of levit.py, and its errors as ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from levit_deploy.errors import DeployError
from levit_deploy.runtime.elf import Elf
from levit_deploy.runtime.levit import Answer, Description, Frame, LevitError, Model

if TYPE_CHECKING:
    from PIL import Image


class Library:
    """A loaded shared library with a workspace: one caller at a time.

    `path`: the `.so` file, under whatever name, or the artifact folder that has one.
    `threads`: how many threads classify an image together; the logits are the same bits.
    Raises DeployError if the file is no such library, is for another CPU or of another ABI version.
    """

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        self.path = _library_file(path)
        name = _library_name(self.path)
        try:
            with self._explained("compile the model again, or use 1 to 16 threads"):
                self.model = Model(self.path, name=name, threads=threads)
        except OSError as error:
            arch = Elf.read(self.path).arch
            raise DeployError(
                f"cannot load `{self.path}`, a library for `{arch}`, in this process: {error}",
                hint="compile the model for this CPU: --target host",
            ) from error

    def describe(self) -> Description:
        """What the library says of itself."""
        return self.model.describe()

    def run(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Normalised (channels, size, size) or (1, channels, size, size) -> logits (classes,).

        Both float32.
        """
        shape = (self.describe().channels, *self._sides)
        checked = _checked(image, np.float32, (shape, (1, *shape)))
        with self._explained():
            return np.frombuffer(self.model.run(checked), np.float32)

    def run_rgb8(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """8-bit RGB (size, size, 3) -> logits (classes,), of a library for RGB."""
        return self._run_8bit("run_rgb8", image, 3, ((*self._sides, 3),))

    def run_gray8(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """8-bit grey (size, size) or (size, size, 1) -> logits (classes,), of one for grey."""
        return self._run_8bit("run_gray8", image, 1, (self._sides, (*self._sides, 1)))

    def run_frame(self, frame: Frame) -> NDArray[np.float32]:
        """A frame of any size -> logits (classes,)."""
        with self._explained():
            return np.frombuffer(self.model.run_frame(frame), np.float32)

    def prepare(self, frame: Frame) -> NDArray[np.uint8]:
        """The image (size, size, channels) that the network sees, before mean and std."""
        with self._explained():
            image = np.frombuffer(self.model.prepare(frame), np.uint8)
        return image.reshape(*self._sides, self.describe().channels)

    def classify(
        self,
        picture: Frame | NDArray[np.uint8] | Image.Image | str | os.PathLike[str],
        count: int = 5,
        *,
        exif: bool | None = None,
    ) -> tuple[Answer, ...]:
        """The most probable classes, best first, at most `count`.

        `picture`: a frame, an array as `Frame.of` takes, a Pillow image, or the path of a file that
        Pillow decodes. `exif`: whether images and files are turned by their EXIF tag (default: as
        the model was evaluated). Raises DeployError if the library has no classes, if the file
        cannot be decoded, or if the library refuses the frame.
        """
        with self._explained("name picture files, such as cat.jpg, for a model with classes"):
            return self.model.classify(picture, count, exif=exif)

    def self_test(self) -> None:
        """Raises DeployError unless this CPU computes what the build machine computed."""
        with self._explained():
            self.model.self_test()

    def profile(self, image: NDArray[np.float32], steps: int) -> NDArray[np.uint64]:
        """Nanoseconds of each of the program's `steps` calls, for one image as in `run`.

        Only profile builds have this (see instrument.py).
        """
        d = self.describe()
        arrays = (
            np.ascontiguousarray(image, np.float32),
            np.empty(d.classes, np.float32),
            np.empty(d.workspace_bytes, np.uint8),
            durations := np.zeros(steps, np.uint64),
        )
        with self._explained():
            self.model.call("profile", *(array.ctypes.data for array in arrays))
        return durations

    def close(self) -> None:
        """End the threads; the library itself stays loaded, as ctypes has it."""
        self.model.close()

    @property
    def _sides(self) -> tuple[int, int]:
        return (self.describe().image_size,) * 2

    def _run_8bit(
        self,
        function: str,
        image: NDArray[np.uint8],
        channels: int,
        shapes: tuple[tuple[int, ...], ...],
    ) -> NDArray[np.float32]:
        if channels != self.describe().channels:
            raise DeployError(
                f"`{self.path.name}` reads images of {self.describe().channels} channels, "
                f"`{function}` gives it {channels}",
                hint="run_rgb8 for 3 (RGB), run_gray8 for 1 (grey)",
            )
        checked = _checked(image, np.uint8, shapes)
        with self._explained():
            return np.frombuffer(self.model.run_8bit(checked), np.float32)

    @contextmanager
    def _explained(self, hint: str | None = None) -> Iterator[None]:
        """What levit.py refuses, as a DeployError."""
        try:
            yield
        except LevitError as error:
            raise DeployError(f"`{self.path.name}`: {error}", hint=hint) from error


def _checked(
    image: NDArray[np.generic], dtype: type[np.generic], shapes: tuple[tuple[int, ...], ...]
) -> NDArray[np.generic]:
    """The image without gaps; raises ValueError unless it is of `dtype` and one of the shapes."""
    if image.dtype != dtype or image.shape not in shapes:
        raise ValueError(
            f"image is {image.dtype} {image.shape}, expected {np.dtype(dtype)} {shapes[0]}"
        )
    return np.ascontiguousarray(image)


def _library_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    libraries = sorted(path.glob("lib*.so"))
    if len(libraries) != 1:
        raise DeployError(
            f"`{path}` has {len(libraries)} libraries in it", hint="name the .so file"
        )
    return libraries[0]


def _library_name(path: Path) -> str:
    """What the library's symbols begin with, from its symbol table; the file may be renamed."""
    suffix = "_describe"
    exported = [s.name for s in Elf.read(path).symbols if s.defined and s.name.endswith(suffix)]
    if len(exported) != 1:
        raise DeployError(f"`{path}` is not a library that levit-deploy made")
    return exported[0].removesuffix(suffix)
