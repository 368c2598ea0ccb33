"""A library in this process: ctypes and numpy, and nothing but the library file itself."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from levit_deploy.errors import DeployError
from levit_deploy.runtime.driver import ABI_VERSION
from levit_deploy.runtime.elf import Elf
from levit_deploy.runtime.frame import Frame

if TYPE_CHECKING:
    from PIL import Image


class _Info(ctypes.Structure):
    """`<name>_info` of the header."""

    _fields_ = (
        ("abi_version", ctypes.c_uint32),
        ("image_size", ctypes.c_uint32),
        ("classes", ctypes.c_uint32),
        ("channels", ctypes.c_uint32),
        ("exif", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("workspace_bytes", ctypes.c_uint64),
        ("name", ctypes.c_char_p),
        ("model", ctypes.c_char_p),
        ("precision", ctypes.c_char_p),
        ("target", ctypes.c_char_p),
        ("weights_digest", ctypes.c_char_p),
        ("build_id", ctypes.c_char_p),
        ("tool_version", ctypes.c_char_p),
        ("mean", ctypes.c_float * 3),
        ("std", ctypes.c_float * 3),
    )


class _Frame(ctypes.Structure):
    """`<name>_frame` of the header."""

    _fields_ = (
        ("planes", ctypes.c_void_p * 3),
        ("strides", ctypes.c_ssize_t * 3),
        *((name, ctypes.c_int32) for name in ("width", "height", "format")),
        *((name, ctypes.c_int32) for name in ("rotation", "mirrored", "matrix", "range")),
    )


class _Answer(ctypes.Structure):
    """`<name>_answer` of the header."""

    _fields_ = (("class_index", ctypes.c_int32), ("probability", ctypes.c_float))


@dataclass(frozen=True)
class Answer:
    """A class with its softmax probability."""

    class_index: int
    label: str
    probability: float


@dataclass(frozen=True)
class Description:
    """What a library says of itself. `exif`: whether pictures are turned by their EXIF tag."""

    abi_version: int
    image_size: int
    classes: int
    channels: int
    exif: bool
    workspace_bytes: int
    name: str
    model: str
    precision: str
    target: str
    weights_digest: str
    build_id: str
    tool_version: str
    preprocessing: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Library:
    """A loaded shared library with a workspace: one caller at a time.

    `path`: the `.so` file, under whatever name, or the artifact folder that has one.
    `threads`: how many threads classify an image together; the logits are the same bits.
    Raises DeployError if the file is no such library, is for another CPU or of another ABI version.
    """

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        self.path = _library_file(path)
        self._name = _library_name(self.path)
        try:
            self._library = ctypes.CDLL(os.fspath(self.path.absolute()))
        except OSError as error:
            arch = Elf.read(self.path).arch
            raise DeployError(
                f"cannot load `{self.path}`, a library for `{arch}`, in this process: {error}",
                hint="compile the model for this CPU: --target host",
            ) from error
        self._description = self._read_description()
        self._workspace = np.empty(self._description.workspace_bytes, np.uint8)
        self._threads = self._create_threads(threads)

    def describe(self) -> Description:
        """What the library says of itself."""
        return self._description

    def run(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Normalised (channels, size, size) or (1, channels, size, size) -> logits (classes,).

        Both float32.
        """
        shape = (self._description.channels, *self._sides)
        return self._run("run_threads", image, np.float32, (shape, (1, *shape)))

    def run_rgb8(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """8-bit RGB (size, size, 3) -> logits (classes,), of a library for RGB."""
        return self._run_8bit("run_rgb8", image, 3, ((*self._sides, 3),))

    def run_gray8(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """8-bit grey (size, size) or (size, size, 1) -> logits (classes,), of one for grey."""
        return self._run_8bit("run_gray8", image, 1, (self._sides, (*self._sides, 1)))

    def run_frame(self, frame: Frame) -> NDArray[np.float32]:
        """A frame of any size -> logits (classes,)."""
        logits = np.empty(self._description.classes, np.float32)
        workspace = self._frame_workspace(frame)
        pointers = (_frame(frame), _pointer(logits), _pointer(workspace))
        self._check(self._function("run_frame")(*pointers, self._threads))
        return logits

    def prepare(self, frame: Frame) -> NDArray[np.uint8]:
        """The image (size, size, channels) that the network sees, before mean and std."""
        image = np.empty((*self._sides, self._description.channels), np.uint8)
        workspace = self._frame_workspace(frame)
        self._check(self._function("prepare")(_frame(frame), _pointer(image), _pointer(workspace)))
        return image

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
        frame = self._as_frame(picture, self._description.exif if exif is None else exif)
        count = min(count, self._description.classes)
        answers = (_Answer * count)()
        pointers = (_frame(frame), answers, count, _pointer(self._frame_workspace(frame)))
        self._check(self._answering("classify")(*pointers, self._threads))
        label = self._answering("label")
        label.restype = ctypes.c_char_p
        return tuple(
            Answer(a.class_index, label(a.class_index).decode(), a.probability) for a in answers
        )

    def self_test(self) -> None:
        """Raises DeployError unless this CPU computes what the build machine computed."""
        self._check(self._function("self_test")(_pointer(self._workspace)))

    def profile(self, image: NDArray[np.float32], steps: int) -> NDArray[np.uint64]:
        """Nanoseconds of each of the program's `steps` calls, for one image as in `run`.

        Only profile builds have this (see instrument.py).
        """
        durations = np.zeros(steps, np.uint64)
        image = np.ascontiguousarray(image, np.float32)
        logits = np.empty(self._description.classes, np.float32)
        pointers = (_pointer(array) for array in (image, logits, self._workspace, durations))
        self._check(self._function("profile")(*pointers))
        return durations

    def close(self) -> None:
        """End the threads; the library itself stays loaded, as ctypes has it."""
        if self._threads:
            self._function("threads_destroy")(self._threads)
            self._threads = ctypes.c_void_p()

    @property
    def _sides(self) -> tuple[int, int]:
        return (self._description.image_size,) * 2

    def _run_8bit(
        self,
        function: str,
        image: NDArray[np.uint8],
        channels: int,
        shapes: tuple[tuple[int, ...], ...],
    ) -> NDArray[np.float32]:
        if channels != self._description.channels:
            raise DeployError(
                f"`{self.path.name}` reads images of {self._description.channels} channels, "
                f"`{function}` gives it {channels}",
                hint="run_rgb8 for 3 (RGB), run_gray8 for 1 (grey)",
            )
        return self._run(f"{function}_threads", image, np.uint8, shapes)

    def _run(
        self,
        function: str,
        image: NDArray[np.generic],
        dtype: type[np.generic],
        shapes: tuple[tuple[int, ...], ...],
    ) -> NDArray[np.float32]:
        if image.dtype != dtype or image.shape not in shapes:
            raise ValueError(
                f"image is {image.dtype} {image.shape}, expected {np.dtype(dtype)} {shapes[0]}"
            )
        image = np.ascontiguousarray(image)
        logits = np.empty(self._description.classes, np.float32)
        pointers = (_pointer(array) for array in (image, logits, self._workspace))
        self._check(self._function(function)(*pointers, self._threads))
        return logits

    def _read_description(self) -> Description:
        function = self._function("describe")
        function.restype = ctypes.POINTER(_Info)
        info: _Info = function().contents
        if info.abi_version != ABI_VERSION:
            raise DeployError(
                f"`{self.path}` has ABI version `{info.abi_version}`, expected `{ABI_VERSION}`",
                hint="compile the model again with this version of levit-deploy",
            )
        preprocessing = self._function("preprocessing")
        preprocessing.restype = ctypes.c_char_p
        values = {name: getattr(info, name) for name, _ in _Info._fields_ if name != "reserved"}
        texts = {name: text.decode() for name, text in values.items() if isinstance(text, bytes)}
        arrays = {name: tuple(values[name][: info.channels]) for name in ("mean", "std")}
        others = {"exif": bool(info.exif), "preprocessing": preprocessing().decode()}
        return Description(**{**values, **texts, **arrays, **others})

    def _as_frame(
        self, picture: Frame | NDArray[np.uint8] | Image.Image | str | os.PathLike[str], exif: bool
    ) -> Frame:
        if isinstance(picture, Frame):
            return picture
        if isinstance(picture, np.ndarray):
            return Frame.of(picture)
        if not isinstance(picture, str | os.PathLike):
            return Frame.of_picture(picture, exif=exif)
        from PIL import Image

        try:
            with Image.open(picture) as image:
                return Frame.of_picture(image, exif=exif)
        except Exception as error:  # any kind: the content is not ours
            raise DeployError(
                f"cannot decode `{picture}`: {error}", hint="name picture files, such as cat.jpg"
            ) from error

    def _frame_workspace(self, frame: Frame) -> NDArray[np.uint8]:
        """Room for frames of this size, kept for the next one."""
        function = self._function("frame_workspace_bytes")
        function.restype = ctypes.c_size_t
        size = function(frame.width, frame.height)
        if size > self._workspace.size:
            self._workspace = np.empty(size, np.uint8)
        return self._workspace

    def _answering(self, name: str) -> ctypes._NamedFuncPointer:
        try:
            return self._function(name)
        except AttributeError:
            raise DeployError(
                f"`{self.path.name}` gives features, not classes",
                hint="use run_frame, or compile the model without --output features",
            ) from None

    def _create_threads(self, count: int) -> ctypes.c_void_p:
        if count == 1:
            return ctypes.c_void_p()
        create = self._function("threads_create")
        create.restype = ctypes.c_void_p
        threads = ctypes.c_void_p(create(count))
        if not threads:
            raise DeployError(f"cannot create `{count}` threads", hint="use 1 to 16")
        return threads

    def _function(self, name: str) -> ctypes._NamedFuncPointer:
        function: ctypes._NamedFuncPointer = getattr(self._library, f"{self._name}_{name}")
        return function

    def _check(self, code: int) -> None:
        if code:
            describe = self._function("strerror")
            describe.restype = ctypes.c_char_p
            raise DeployError(f"`{self.path.name}`: {describe(code).decode()}")


def _frame(frame: Frame) -> ctypes._CArgObject:
    """A pointer to the header's struct; the arrays must outlive the call."""
    planes = (*frame.planes, *([None] * (3 - len(frame.planes))))
    return ctypes.byref(
        _Frame(
            planes=(ctypes.c_void_p * 3)(*(p if p is None else p.ctypes.data for p in planes)),
            strides=(ctypes.c_ssize_t * 3)(*(0 if p is None else p.strides[0] for p in planes)),
            width=frame.width,
            height=frame.height,
            format=frame.format,
            rotation=frame.rotation,
            mirrored=frame.mirrored,
            matrix=frame.matrix,
            range=frame.range,
        )
    )


def _pointer(array: NDArray[np.generic]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


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
