"""A compiled LeViT in Python: this file, the library beside it, and nothing else.

    import levit

    for answer in levit.classify("cat.jpg"):
        print(f"{answer.probability:6.1%}  {answer.label}")

A picture is the path of a file, a Pillow image, a numpy array of 8-bit RGB, RGBA or grey, or a
`Frame`, as of raw bytes: `Frame.of_bytes(data, 640, 480, Format.NV12)`. The library makes its image
of it as the model was evaluated. Files need Pillow; nothing else needs any package, and importing
this needs none.

The functions of this module share one `Model`, one call after the other. Make a `Model` for each
thread to classify side by side, or one with `threads` to share the work of an image. Python 3.9 or
newer.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

if TYPE_CHECKING:
    from PIL import Image

    # A numpy array, or anything with the buffer protocol, such as bytes or a memoryview.
    Pixels = Any
    Picture = Union["Frame", Image.Image, str, os.PathLike[str], Pixels]

ABI_VERSION = 2
_ERROR_CPU = 2
_SIDE_MAX = 16384
_LIBRARIES = ("lib*.so", "*.dll", "lib*.dylib")
_EXIF_ORIENTATION = 0x0112
# Orientation 1 to 8 (CIPA DC-008, EXIF 2.32) -> rotation, mirrored.
_TURNS = ((0, 0), (0, 1), (180, 0), (180, 1), (270, 1), (90, 0), (90, 1), (270, 0))


class LevitError(Exception):
    """What the library refuses, in its words, or what it cannot do."""


class Format(IntEnum):
    """What a byte means; the numbers are those of the library's header."""

    RGB = 0
    BGR = 1
    RGBA = 2
    BGRA = 3
    GRAY8 = 4
    NV12 = 5
    NV21 = 6
    I420 = 7
    YUYV = 8
    UYVY = 9


class Matrix(IntEnum):
    BT601 = 0
    BT709 = 1


class Range(IntEnum):
    LIMITED = 0
    FULL = 1


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture in memory.

    `planes`: 8-bit arrays whose first axis is rows, each row without gaps; rows may lie apart.
    `width`, `height`: pixels as they lie in memory. `rotation`: degrees clockwise that turn it
    upright; `mirrored`: left and right are swapped before. `matrix`, `range`: of YUV.
    Raises ValueError if a plane is no such array, or smaller than the frame; what else is wrong the
    library says.
    """

    planes: tuple[Pixels, ...]
    width: int
    height: int
    format: Format
    rotation: int = 0
    mirrored: bool = False
    matrix: Matrix = Matrix.BT601
    range: Range = Range.LIMITED

    def __post_init__(self) -> None:
        needs = []
        if 0 < self.width <= _SIDE_MAX and 0 < self.height <= _SIDE_MAX:
            needs = _plane_sizes(self.format, self.width, self.height)
        for plane in self.planes:
            _Layout.of(plane).require_rows()
        for plane, (rows, row_bytes) in zip(self.planes, needs):
            _Layout.of(plane).require(rows, row_bytes)

    @staticmethod
    def of(pixels: Pixels) -> Frame:
        """RGB (height, width, 3), RGBA (height, width, 4) or grey (height, width).

        Raises ValueError for other arrays.
        """
        shape = _Layout.of(pixels).shape
        channels = shape[2] if len(shape) == 3 else 1
        formats = {1: Format.GRAY8, 3: Format.RGB, 4: Format.RGBA}
        if len(shape) not in (2, 3) or channels not in formats:
            raise ValueError(f"a picture of shape {shape}, expected (height, width, 3)")
        return Frame((pixels,), shape[1], shape[0], formats[channels])

    @staticmethod
    def of_bytes(
        data: Pixels, width: int, height: int, format: Format, *, rotation: int = 0
    ) -> Frame:
        """All planes one behind the other, rows without gaps; of YUV, BT.601 with limited range.

        Raises ValueError unless there are just as many bytes as that takes.
        """
        sizes = _plane_sizes(format, width, height)
        total, view = sum(rows * row_bytes for rows, row_bytes in sizes), memoryview(data)
        if width < 1 or height < 1 or view.nbytes != total:
            raise ValueError(
                f"{width} x {height} pixels of {format.name} are {total} bytes, not {view.nbytes}"
            )
        view, planes, start = view.cast("B"), [], 0
        for rows, row_bytes in sizes:
            stop = start + rows * row_bytes
            planes.append(view[start:stop].cast("B", (rows, row_bytes)))
            start = stop
        return Frame(tuple(planes), width, height, format, rotation)

    @staticmethod
    def of_picture(picture: Image.Image, *, exif: bool) -> Frame:
        """Pillow's `convert("RGB")` of a picture; `exif`: turned as its tag says."""
        tag = picture.getexif().get(_EXIF_ORIENTATION, 1) if exif else 1
        rotation, mirrored = _TURNS[tag - 1] if tag in range(1, 9) else _TURNS[0]
        (width, height), data = picture.size, picture.convert("RGB").tobytes()
        pixels = Frame.of_bytes(data, width, height, Format.RGB).planes
        return Frame(pixels, width, height, Format.RGB, rotation, bool(mirrored))


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


class Model:
    """A loaded library with a workspace; calls from several threads wait for each other.

    `library`: the file. By default the one beside this module, or of those in the folders beside it
    the first that this CPU runs. `name`: what its symbols begin with, by default what the file's
    name says. `threads`: how many share the work of an image, 1 to 16; the logits are the same.
    Raises OSError if there is no such library for this system, LevitError if it is of another ABI
    version or the threads cannot be made.
    """

    def __init__(
        self,
        library: str | os.PathLike[str] | None = None,
        *,
        name: str | None = None,
        threads: int = 1,
    ) -> None:
        paths = _beside_this() if library is None else [Path(library)]
        for path in paths:
            self.path = path
            prefixed = path.name.startswith("lib") and path.suffix != ".dll"
            self._name = name or path.stem[3 if prefixed else 0 :]
            self._library = ctypes.CDLL(os.fspath(path.absolute()))
            self._description = self._describe()
            if len(paths) == 1 or self._is_for_this_cpu():
                break
        self._lock = threading.Lock()
        self._workspace = (ctypes.c_ubyte * self._description.workspace_bytes)()
        self._threads: int | None = None
        if threads != 1:
            self._threads = self.function("threads_create")(threads)
            if not self._threads:
                raise LevitError(f"cannot create `{threads}` threads: use 1 to 16")

    def describe(self) -> Description:
        """What the library says of itself."""
        return self._description

    @property
    def labels(self) -> tuple[str, ...]:
        """What each class is called."""
        label = self.function("label")
        return tuple(label(index).decode() for index in range(self._description.classes))

    def classify(
        self, picture: Picture, top: int = 5, *, exif: bool | None = None
    ) -> tuple[Answer, ...]:
        """The most probable classes, best first, at most `top`.

        `exif`: whether images and files are turned by their EXIF tag (default: as the model was
        evaluated). Raises LevitError if a file cannot be decoded, if the library refuses the frame
        or if it gives features; ValueError for what is no picture.
        """
        label = self.function("label")
        count = min(top, self._description.classes)
        answers = (_Answer * max(count, 0))()
        with self._room_for(self._frame(picture, exif)) as (frame, workspace):
            self.call("classify", frame, answers, count, workspace, self._threads)
        return tuple(
            Answer(a.class_index, label(a.class_index).decode(), a.probability) for a in answers
        )

    def run_frame(self, picture: Picture, *, exif: bool | None = None) -> array[float]:
        """The logits of a picture, or its features, float32; `exif` as for `classify`."""
        logits = self._logits()
        with self._room_for(self._frame(picture, exif)) as (frame, workspace):
            self.call("run_frame", frame, _address(logits), workspace, self._threads)
        return logits

    def prepare(self, picture: Picture, *, exif: bool | None = None) -> bytes:
        """The image that the network sees of it, before mean and std: (size, size, channels)."""
        image = (ctypes.c_ubyte * (self._pixels * self._description.channels))()
        with self._room_for(self._frame(picture, exif)) as (frame, workspace):
            self.call("prepare", frame, image, workspace)
        return bytes(image)

    def run(self, image: Pixels) -> array[float]:
        """A normalised image, float32 (channels, size, size) -> logits, float32."""
        return self._run("run", image, "<f4")

    def run_8bit(self, image: Pixels) -> array[float]:
        """An image of the model's own size, uint8 (size, size, channels) -> logits, float32."""
        function = "run_rgb8" if self._description.channels == 3 else "run_gray8"
        return self._run(function, image, "|u1")

    def softmax(self, logits: Iterable[float]) -> array[float]:
        """Logits of all classes -> their probabilities, float32."""
        values = array("f", logits)
        if len(values) != self._description.classes:
            raise ValueError(f"{len(values)} logits, expected {self._description.classes}")
        self.call("softmax", _address(values), _address(values))
        return values

    def self_test(self) -> None:
        """Raises LevitError unless this CPU computes what the build machine computed."""
        with self._lock:
            self.call("self_test", self._workspace)

    def close(self) -> None:
        """End the threads; the library itself stays loaded, as ctypes has it."""
        if self._threads:
            self.function("threads_destroy")(self._threads)
            self._threads = None

    def call(self, function: str, *arguments: object) -> None:
        """Call a function of the header that returns a code; raises LevitError for all but OK."""
        code = self.function(function)(*arguments)
        if code:
            raise LevitError(self.function("strerror")(code).decode())

    def function(self, name: str) -> Any:
        """A function of the header, by what follows the library's name.

        Raises LevitError if the library has none, as one for features has none of classes.
        """
        try:
            found = getattr(self._library, f"{self._name}_{name}")
        except AttributeError:
            of_classes = name in ("classify", "label", "softmax")
            reason = "gives features, not classes" if of_classes else f"has no `{name}`"
            raise LevitError(reason) from None
        found.restype, *found.argtypes = _SIGNATURES[name]
        return found

    @property
    def _pixels(self) -> int:
        return self._description.image_size**2

    def _describe(self) -> Description:
        info: _Info = self.function("describe")().contents
        if info.abi_version != ABI_VERSION:
            raise LevitError(f"has ABI version `{info.abi_version}`, expected `{ABI_VERSION}`")
        values = {name: getattr(info, name) for name, _ in _Info._fields_ if name != "reserved"}
        texts = {name: text.decode() for name, text in values.items() if isinstance(text, bytes)}
        arrays = {name: tuple(values[name][: info.channels]) for name in ("mean", "std")}
        preprocessing = self.function("preprocessing")().decode()
        others = {"exif": bool(info.exif), "preprocessing": preprocessing}
        return Description(**{**values, **texts, **arrays, **others})

    def _is_for_this_cpu(self) -> bool:
        """Asked by a call that fails whatever the CPU is: a frame of no size."""
        image, workspace = (ctypes.c_ubyte * 1)(), (ctypes.c_ubyte * 1)()
        code: int = self.function("prepare")(_CFrame(), image, workspace)
        return code != _ERROR_CPU

    def _frame(self, picture: Picture, exif: bool | None) -> Frame:
        if isinstance(picture, Frame):
            return picture
        turned = self._description.exif if exif is None else exif
        if isinstance(picture, (str, os.PathLike)):
            return _read(picture, turned)
        if hasattr(picture, "getexif"):
            return Frame.of_picture(picture, exif=turned)
        return Frame.of(picture)

    @contextmanager
    def _room_for(self, frame: Frame) -> Iterator[tuple[_CFrame, ctypes.Array[ctypes.c_ubyte]]]:
        """The frame as C takes it, and a workspace for its size, kept for the next one."""
        planes = [_locate(plane) for plane in frame.planes]  # what is copied lives to the end
        record = _CFrame(
            planes=(ctypes.c_void_p * 3)(*(address for address, _ in planes)),
            strides=(ctypes.c_ssize_t * 3)(*(_Layout.of(p).strides[0] for p in frame.planes)),
            width=frame.width,
            height=frame.height,
            format=frame.format,
            rotation=frame.rotation,
            mirrored=frame.mirrored,
            matrix=frame.matrix,
            range=frame.range,
        )
        with self._lock:
            size = self.function("frame_workspace_bytes")(frame.width, frame.height)
            if size > len(self._workspace):
                self._workspace = (ctypes.c_ubyte * size)()
            yield record, self._workspace

    def _run(self, function: str, image: Pixels, kind: str) -> array[float]:
        layout, (address, _owner), logits = _Layout.of(image), _locate(image), self._logits()
        layout.require_values(kind, self._pixels * self._description.channels)
        with self._lock:
            arguments = (address, _address(logits), self._workspace, self._threads)
            self.call(f"{function}_threads", *arguments)
        return logits

    def _logits(self) -> array[float]:
        return array("f", bytes(4 * self._description.classes))


@functools.lru_cache(maxsize=1)
def model() -> Model:
    """The library beside this module, loaded when it is first asked for."""
    return Model()


def classify(picture: Picture, top: int = 5, *, exif: bool | None = None) -> tuple[Answer, ...]:
    """See `Model.classify`."""
    return model().classify(picture, top, exif=exif)


def run_frame(picture: Picture, *, exif: bool | None = None) -> array[float]:
    """See `Model.run_frame`."""
    return model().run_frame(picture, exif=exif)


def run(image: Pixels) -> array[float]:
    """See `Model.run`."""
    return model().run(image)


def softmax(logits: Iterable[float]) -> array[float]:
    """See `Model.softmax`."""
    return model().softmax(logits)


def labels() -> tuple[str, ...]:
    """See `Model.labels`."""
    return model().labels


def describe() -> Description:
    """See `Model.describe`."""
    return model().describe()


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


class _CFrame(ctypes.Structure):
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


_INT, _POINTER, _TEXT = ctypes.c_int32, ctypes.c_void_p, ctypes.c_char_p
_FRAME, _ANSWERS = ctypes.POINTER(_CFrame), ctypes.POINTER(_Answer)
# What each function of the header returns, and takes.
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "describe": (ctypes.POINTER(_Info),),
    "preprocessing": (_TEXT,),
    "strerror": (_TEXT, _INT),
    "label": (_TEXT, _INT),
    "frame_workspace_bytes": (ctypes.c_size_t, _INT, _INT),
    "threads_create": (_POINTER, _INT),
    "threads_destroy": (None, _POINTER),
    "classify": (_INT, _FRAME, _ANSWERS, _INT, _POINTER, _POINTER),
    "run_frame": (_INT, _FRAME, _POINTER, _POINTER, _POINTER),
    "prepare": (_INT, _FRAME, _POINTER, _POINTER),
    **dict.fromkeys(
        ("run_threads", "run_rgb8_threads", "run_gray8_threads"),
        (_INT, _POINTER, _POINTER, _POINTER, _POINTER),
    ),
    "softmax": (_INT, _POINTER, _POINTER),
    "self_test": (_INT, _POINTER),
    "profile": (_INT, _POINTER, _POINTER, _POINTER, _POINTER),  # of profile builds
}


@dataclass(frozen=True)
class _Layout:
    """How an array lies in memory: bytes between neighbours, and its type as numpy spells it."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    kind: str

    @staticmethod
    def of(data: Pixels) -> _Layout:
        interface = getattr(data, "__array_interface__", None)
        if interface is None:
            view = _view(data)
            kind = {"B": "|u1", "f": "<f4"}.get(view.format, view.format)
            shape, size, strides = view.shape or (), view.itemsize, None
        else:  # numpy's
            shape, kind, strides = (interface[key] for key in ("shape", "typestr", "strides"))
            size = int(kind[2:])
        return _Layout(shape, strides or _packed(shape, size), kind)

    def require_rows(self) -> None:
        """Raises ValueError unless it is 8-bit rows without gaps."""
        inner = zip(self.shape[1:], self.strides[1:], _packed(self.shape, 1)[1:])
        gaps = any(size > 1 and stride != packed for size, stride, packed in inner)
        if self.kind != "|u1" or len(self.shape) < 2 or gaps:
            raise ValueError(
                f"a plane is {self.kind} {self.shape}, expected uint8 rows without gaps"
            )

    def require(self, rows: int, row_bytes: int) -> None:
        """Raises ValueError if a frame's rows, that its stride allows for, lie outside of it."""
        own = _packed(self.shape, 1)[0]
        if abs(self.strides[0]) >= row_bytes and (self.shape[0] < rows or own < row_bytes):
            raise ValueError(
                f"a plane has {self.shape[0]} rows of {own} bytes, the frame needs {rows} of "
                f"{row_bytes}"
            )

    def require_values(self, kind: str, count: int) -> None:
        """Raises ValueError unless it is so many values of that kind, without gaps."""
        size = int(kind[2:])
        total, *packed = _packed((1, *self.shape), size)
        if self.kind != kind or list(self.strides) != packed or total != count * size:
            raise ValueError(f"image is {self.kind} {self.shape}, expected {count} of {kind}")


def _packed(shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    """Strides of an array without gaps, of values of `size` bytes."""
    strides: list[int] = []
    for length in reversed(shape):
        strides.insert(0, size)
        size *= length
    return tuple(strides)


def _view(data: Pixels) -> memoryview:
    try:
        view = memoryview(data)
    except TypeError:
        raise ValueError(f"a {type(data).__name__} is no picture") from None
    return view if view.c_contiguous else memoryview(view.tobytes()).cast("B", view.shape or ())


def _locate(data: Pixels) -> tuple[int, object]:
    """Where an array begins, and what must live while that is used; read-only bytes are copied."""
    interface = getattr(data, "__array_interface__", None)
    if interface is not None:
        return interface["data"][0], data
    view = _view(data)
    kept = ctypes.c_ubyte * view.nbytes
    owner = kept.from_buffer_copy(view) if view.readonly else kept.from_buffer(view)
    return ctypes.addressof(owner), owner


def _address(values: array[float]) -> int:
    return values.buffer_info()[0]


def _plane_sizes(format: Format, width: int, height: int) -> list[tuple[int, int]]:
    """Rows and bytes of a row of each plane; none for what is no format."""
    if format in (Format.NV12, Format.NV21):
        return [(height, width), (height // 2, width)]
    if format == Format.I420:
        return [(height, width), (height // 2, width // 2), (height // 2, width // 2)]
    pixel_bytes = {
        **dict.fromkeys((Format.RGB, Format.BGR), 3),
        **dict.fromkeys((Format.RGBA, Format.BGRA), 4),
        **dict.fromkeys((Format.YUYV, Format.UYVY), 2),
        Format.GRAY8: 1,
    }
    return [(height, width * pixel_bytes[format])] if format in pixel_bytes else []


def _read(path: str | os.PathLike[str], exif: bool) -> Frame:
    try:
        from PIL import Image
    except ImportError:
        raise LevitError(f"cannot decode `{path}` without Pillow: pip install pillow") from None
    try:
        with Image.open(path) as picture:
            return Frame.of_picture(picture, exif=exif)
    except Exception as error:  # any kind: the content is not ours
        raise LevitError(f"cannot decode `{path}`: {error}") from error


def _beside_this() -> list[Path]:
    """The libraries beside this module, or in folders beside it, in the order of their names."""
    here = Path(__file__).parent
    for place in ("", "*/"):
        for pattern in _LIBRARIES:
            if found := sorted(here.glob(place + pattern)):
                return found
    raise FileNotFoundError(f"there is no library in `{here}`")
