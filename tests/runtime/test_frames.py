"""Frames of any size, format and orientation, against Pillow, OpenCV and torch."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from levit_deploy.errors import DeployError
from levit_deploy.models.pictures import model_sized
from levit_deploy.models.preprocessing import (
    ORIGINAL_PREPROCESSING,
    TIMM_PREPROCESSING,
    TRANSFORMERS_PREPROCESSING,
    Preprocessing,
    Resample,
    Resize,
)
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.build import FRAME_SOURCES, build_artifact, generate_sources
from levit_deploy.runtime.levit import Format, Frame, Matrix, Range
from levit_deploy.runtime.loader import Library
from levit_deploy.runtime.self_test import SelfTest
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import find_toolchain
from tests.machine import prefix_for
from tests.runtime.c_program import run
from tests.runtime.small_network import CLASSES, SIDE, SmallNetwork, random_rgb

SIZE = 64  # of the pictures that are prepared; only those of `SIDE` are classified
SQUASH = replace(ORIGINAL_PREPROCESSING, side=1, crop=1, resize=Resize.SQUASH)
WAYS = {
    "original": ORIGINAL_PREPROCESSING,
    "transformers": TRANSFORMERS_PREPROCESSING,
    "bilinear": replace(TIMM_PREPROCESSING, resample=Resample.BILINEAR),
    "squash": SQUASH,
    "box": replace(TIMM_PREPROCESSING, resample=Resample.BOX),
    "hamming": replace(TIMM_PREPROCESSING, resample=Resample.HAMMING),
    "lanczos": replace(TIMM_PREPROCESSING, resample=Resample.LANCZOS),
    "nearest": replace(TIMM_PREPROCESSING, resample=Resample.NEAREST),
}
AS_IT_IS = replace(ORIGINAL_PREPROCESSING, side=1, crop=1, resize=Resize.NONE)
TARGETS = ("host", "x86-64", "x86-64-v3", "x86-64-v4", "arm64", "arm64-dotprod", "armv7")
YUV = (Format.NV12, Format.NV21, Format.I420, Format.YUYV, Format.UYVY)


class Program:
    """frames.c around a library, whose memory lies between guard pages."""

    def __init__(self, target: str, way: Preprocessing, size: int, folder: Path) -> None:
        toolchain = find_toolchain(get_target(target))
        self.prefix = prefix_for(toolchain.target)
        self._program, self.folder = folder / "frames", folder
        artifact = artifact_of(target, way, size, folder)
        source = Path(__file__).with_name("frames.c")
        flags = ("-DMODEL=small", '-DHEADER="small.h"', f"-I{artifact.folder.resolve()}")
        toolchain.link_program([source, artifact.static_library], self._program, flags)

    def run(self, *arguments: str) -> str:
        return run(self._program, self.prefix, arguments=arguments)


class Prepare(Program):
    """Frames -> images of `SIZE`."""

    def __call__(self, frames: Sequence[Frame]) -> np.ndarray:
        inputs, output = self.folder / "frames.bin", self.folder / "images.bin"
        inputs.write_bytes(b"".join(map(serialized, frames)))
        self.run("prepare", str(inputs), str(output))
        return np.fromfile(output, np.uint8).reshape(len(frames), SIZE, SIZE, 3)


def serialized(frame: Frame) -> bytes:
    """As frames.c reads it."""
    planes = [
        *map(np.asarray, frame.planes),
        *[np.zeros((0, 0), np.uint8)] * (3 - len(frame.planes)),
    ]
    strides = [plane.strides[0] if plane.size else 0 for plane in planes]
    contents = []
    for plane, stride in zip(planes, strides, strict=True):
        rows = plane[::-1] if stride < 0 else plane
        content = bytearray()
        for index, row in enumerate(rows):
            content += row.tobytes()
            if index + 1 < len(rows):
                content += bytes(abs(stride) - len(row.tobytes()))
        contents.append(bytes(content))
    turns = (frame.rotation, int(frame.mirrored), frame.matrix, frame.range)
    head = (frame.width, frame.height, frame.format, *turns, *strides, *map(len, contents))
    return struct.pack("=13i", *head) + b"".join(contents)


def artifact_of(target: str, way: Preprocessing, size: int, folder: Path) -> Artifact:
    """A library for frames; its network runs if `size` is `SIDE`."""
    toolchain = find_toolchain(get_target(target))
    network = SmallNetwork.random(seed=0)
    program = network.program(toolchain, folder / "kernels")
    card = replace(program.card, preprocessing=way, image_size=size)
    labels = ("cat", "dog", "Käse", "plane", "ship")
    program = replace(program, image_size=size, card=card.stated("a test", labels=labels))
    self_test = network.self_test() if size == SIDE else SelfTest((0.0,) * CLASSES, 1)
    return build_artifact(program, toolchain, self_test, folder)


@pytest.fixture(scope="module")
def preparing(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Preprocessing], Prepare]:
    made: dict[tuple[str, Preprocessing], Prepare] = {}

    def get(target: str, way: Preprocessing) -> Prepare:
        if (target, way) not in made:
            made[target, way] = Prepare(target, way, SIZE, tmp_path_factory.mktemp("prepare"))
        return made[target, way]

    return get


def random_size(rng: np.random.Generator, largest: int) -> tuple[int, int]:
    width, height = np.exp(rng.uniform(0, np.log(largest), 2)).astype(int)
    return int(width), int(height)


def random_picture(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Noise, or black and white, which overshoots both ends."""
    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return noise if rng.integers(2) else (noise > 127).astype(np.uint8) * 255


def assert_pillows(prepare: Prepare, way: Preprocessing, sizes: Sequence[tuple[int, int]]) -> None:
    rng = np.random.default_rng(0)
    pictures = [random_picture(rng, *size) for size in sizes]
    images = prepare([Frame.of(picture) for picture in pictures])
    for size, picture, image in zip(sizes, pictures, images, strict=True):
        np.testing.assert_array_equal(image, model_sized(picture, way, SIZE), err_msg=str(size))


@pytest.mark.parametrize(
    ("way", "target"),
    [
        *(("original", target) for target in TARGETS),
        ("bilinear", "host"),
        *(pytest.param("bilinear", other, marks=pytest.mark.slow) for other in TARGETS[1:]),
    ],
)
def test_pictures_are_pillows_to_the_bit(
    target: str, way: str, preparing: Callable[[str, Preprocessing], Prepare]
) -> None:
    """Up and down, passes that change nothing, and heights that are resized first."""
    rng = np.random.default_rng(len(target))
    side = WAYS[way].resized_side(SIZE)
    special = [(1, 1), (SIZE, SIZE), (side, side), (side, 99), (900, 1), (1, 700), (90, 555)]
    largest = 1000 if target == "host" else 400
    sizes = [*special, *(random_size(rng, largest) for _ in range(40))]
    assert_pillows(preparing(target, WAYS[way]), WAYS[way], sizes)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_is_pillows_to_the_bit(
    way: str, preparing: Callable[[str, Preprocessing], Prepare]
) -> None:
    rng = np.random.default_rng(1)
    sizes = [random_size(rng, 700) for _ in range(40)]
    assert_pillows(preparing("host", WAYS[way]), WAYS[way], sizes)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("way", ["original", "transformers", "bilinear"])
def test_thousands_of_sizes_are_pillows_to_the_bit(
    target: str, way: str, preparing: Callable[[str, Preprocessing], Prepare]
) -> None:
    rng = np.random.default_rng(2)
    native = target in ("host", "x86-64-v3")
    sizes = [random_size(rng, 6000 if native else 1500) for _ in range(2000 if native else 300)]
    large = [(6000, 4000), (16384, 300), (40, 16384)] if native else []
    for start in range(0, len(sizes), 50):
        assert_pillows(preparing(target, WAYS[way]), WAYS[way], sizes[start : start + 50])
    assert_pillows(preparing(target, WAYS[way]), WAYS[way], large)


def random_yuv(rng: np.random.Generator, kind: Format, width: int, height: int) -> Frame:
    shapes = {
        Format.NV12: [(height, width), (height // 2, width)],
        Format.NV21: [(height, width), (height // 2, width)],
        Format.I420: [(height, width), (height // 2, width // 2), (height // 2, width // 2)],
        Format.YUYV: [(height, 2 * width)],
        Format.UYVY: [(height, 2 * width)],
    }[kind]
    planes = tuple(rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes)
    return Frame(planes, width, height, kind)


def opencv_rgb(frame: Frame) -> np.ndarray:
    code = getattr(cv2, f"COLOR_YUV2RGB_{frame.format.name}")
    if len(frame.planes) == 1:
        return cv2.cvtColor(frame.planes[0].reshape(frame.height, frame.width, 2), code)
    joined = np.concatenate([plane.ravel() for plane in frame.planes])
    return cv2.cvtColor(joined.reshape(frame.height * 3 // 2, frame.width), code)


@pytest.mark.parametrize("target", TARGETS)
def test_yuv_is_opencvs_to_the_bit(
    target: str, preparing: Callable[[str, Preprocessing], Prepare]
) -> None:
    """Of the model's size, so that each pixel shows; and of others, turned."""
    rng = np.random.default_rng(3)
    frames = [random_yuv(rng, kind, SIZE, SIZE) for kind in YUV]
    for frame, image in zip(frames, preparing(target, AS_IT_IS)(frames), strict=True):
        np.testing.assert_array_equal(image, opencv_rgb(frame), err_msg=frame.format.name)

    turned = [replace(random_yuv(rng, kind, 210, 138), rotation=270) for kind in YUV]
    images = preparing(target, ORIGINAL_PREPROCESSING)(turned)
    for frame, image in zip(turned, images, strict=True):
        upright = np.rot90(opencv_rgb(frame))
        expected = model_sized(np.ascontiguousarray(upright), ORIGINAL_PREPROCESSING, SIZE)
        np.testing.assert_array_equal(image, expected, err_msg=frame.format.name)


@pytest.mark.parametrize("matrix", Matrix)
@pytest.mark.parametrize("range_", Range)
def test_yuv_of_each_standard(
    matrix: Matrix, range_: Range, preparing: Callable[[str, Preprocessing], Prepare]
) -> None:
    """Against the definition in floats, from the luma weights alone (ITU-R BT.601-7, BT.709-6)."""
    frame = random_yuv(np.random.default_rng(4), Format.YUYV, SIZE, SIZE)
    frame = replace(frame, matrix=matrix, range=range_)
    pairs = frame.planes[0].reshape(SIZE, SIZE // 2, 4).astype(float)
    y = pairs[..., [0, 2]].reshape(SIZE, SIZE)
    u, v = (np.repeat(pairs[..., i] - 128, 2, axis=1) for i in (1, 3))
    if range_ is Range.LIMITED:
        y, u, v = np.maximum(y - 16, 0) * 255 / 219, u * 255 / 224, v * 255 / 224
    red, blue = {Matrix.BT601: (0.299, 0.114), Matrix.BT709: (0.2126, 0.0722)}[matrix]
    green = 1 - red - blue
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    expected = np.stack([r, (y - red * r - blue * b) / green, b], axis=-1).clip(0, 255)
    image = preparing("host", AS_IT_IS)([frame])[0]
    # OpenCV's constants for BT.601 with limited range have three digits behind the point.
    assert np.abs(image - expected).max() < 1


def test_other_formats(preparing: Callable[[str, Preprocessing], Prepare]) -> None:
    rng = np.random.default_rng(5)
    rgb = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    grey = np.ascontiguousarray(rgb[..., 0])
    with_alpha = np.dstack([rgb, rng.integers(0, 256, (SIZE, SIZE), dtype=np.uint8)])
    bgra = np.ascontiguousarray(with_alpha[..., [2, 1, 0, 3]])
    frames = [
        Frame((np.ascontiguousarray(rgb[..., ::-1]),), SIZE, SIZE, Format.BGR),
        Frame.of(with_alpha),
        Frame((bgra,), SIZE, SIZE, Format.BGRA),
        Frame.of(grey),
    ]
    *colours, of_grey = preparing("host", AS_IT_IS)(frames)
    for image in colours:
        np.testing.assert_array_equal(image, rgb)
    np.testing.assert_array_equal(of_grey, np.dstack([grey] * 3))


def test_rows_that_lie_apart_or_upside_down(
    preparing: Callable[[str, Preprocessing], Prepare],
) -> None:
    picture = random_picture(np.random.default_rng(6), 200, 150)
    wide = np.zeros((150, 230, 3), np.uint8)
    wide[:, :200] = picture
    bottom_up = np.ascontiguousarray(picture[::-1])[::-1]
    frames = [Frame.of(picture), Frame.of(wide[:, :200]), Frame.of(bottom_up)]
    images = preparing("host", ORIGINAL_PREPROCESSING)(frames)
    assert (images == images[0]).all()


@pytest.mark.parametrize("target", ["host", "arm64"])
def test_orientations_are_those_of_exif(
    target: str, preparing: Callable[[str, Preprocessing], Prepare]
) -> None:
    rng = np.random.default_rng(7)
    frames, expected = [], []
    for width, height in ((130, 75), (41, 203), (300, 2)):
        for tag in range(1, 9):
            picture = Image.fromarray(random_picture(rng, width, height))
            picture.getexif()[0x0112] = tag
            frames.append(Frame.of_picture(picture, exif=True))
            upright = np.asarray(ImageOps.exif_transpose(picture))
            expected.append(model_sized(upright, ORIGINAL_PREPROCESSING, SIZE))
    images = preparing(target, ORIGINAL_PREPROCESSING)(frames)
    np.testing.assert_array_equal(images, np.stack(expected))


def test_a_workspace_serves_smaller_frames(tmp_path: Path) -> None:
    for way in (ORIGINAL_PREPROCESSING, SQUASH):
        library = Library(artifact_of("host", way, SIDE, tmp_path / way.resize).folder)
        size_of = library.model.function("frame_workspace_bytes")
        sizes = [1, 2, 3, 8, 9, 10, 100, 101, 640, 1000, 1001, 4095, 4096, 16384]
        needs = np.array([[size_of(w, h) for w in sizes] for h in sizes])
        assert (np.diff(needs, axis=0) >= 0).all()
        assert (needs == needs.T).all()
        assert [size_of(w, h) for w, h in ((0, 1), (1, -1), (16385, 1), (1, 16385))] == [0] * 4


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return artifact_of("host", ORIGINAL_PREPROCESSING, SIDE, tmp_path_factory.mktemp("classify"))


@pytest.fixture(scope="module")
def library(classifier: Artifact) -> Library:
    return Library(classifier.folder)


def test_answers_are_torchs_softmax(library: Library) -> None:
    for seed in range(20):
        picture = random_picture(np.random.default_rng(seed), 40 + seed, 33)
        logits = library.run_frame(Frame.of(picture))
        image = model_sized(picture, ORIGINAL_PREPROCESSING, SIDE)
        np.testing.assert_array_equal(logits, library.run_rgb8(image))
        probabilities = torch.from_numpy(logits).double().softmax(dim=0).numpy()
        answers = library.classify(picture)
        order = np.argsort(-probabilities, kind="stable")
        assert [answer.class_index for answer in answers] == list(order)
        got = [answer.probability for answer in answers]
        np.testing.assert_allclose(got, probabilities[order], rtol=1e-6, atol=1e-30)
        assert answers[:2] == library.classify(picture, 2)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 16])
def test_threads_make_the_same_picture(classifier: Artifact, library: Library, count: int) -> None:
    """In up to four parts, but those that are resized vertically first."""
    rng = np.random.default_rng(count)
    together = Library(classifier.folder, threads=count)
    for size in ((90, 61), (300, 200), (20, 900), (3, 2)):
        frame = Frame.of(random_picture(rng, *size))
        for turn in (0, 90, 180, 270):
            for mirrored in (False, True):
                turned = replace(frame, rotation=turn, mirrored=mirrored)
                expected = library.run_frame(turned)
                np.testing.assert_array_equal(together.run_frame(turned), expected)
    together.close()


def test_labels_and_even_odds(library: Library) -> None:
    answers = library.classify(np.zeros((10, 10, 3), np.uint8))
    assert {answer.label for answer in answers} == {"cat", "dog", "Käse", "plane", "ship"}
    softmax = np.asarray(library.model.softmax(np.zeros(CLASSES, np.float32)))
    np.testing.assert_allclose(softmax, 1 / CLASSES, rtol=1e-7)


def test_of_equal_classes_the_first_comes_first(tmp_path: Path) -> None:
    network = SmallNetwork.random(seed=0)
    even = replace(network, head=np.repeat(network.head[:1], CLASSES, axis=0))
    toolchain = find_toolchain(get_target("host"))
    program = even.program(toolchain, tmp_path / "kernels")
    library = Library(build_artifact(program, toolchain, even.self_test(), tmp_path).folder)
    for count in (2, CLASSES):
        answers = library.classify(random_rgb(0), count)
        assert [answer.class_index for answer in answers] == list(range(count))


def test_files_are_turned_if_the_model_was_evaluated_so(library: Library, tmp_path: Path) -> None:
    picture = Image.fromarray(random_picture(np.random.default_rng(8), 90, 60))
    picture.getexif()[0x0112] = 6
    picture.save(tmp_path / "turned.png", exif=picture.getexif())
    as_it_is = library.classify(np.asarray(picture))
    upright = library.classify(np.asarray(ImageOps.exif_transpose(picture)))
    assert library.describe().exif is False
    assert library.classify(tmp_path / "turned.png") == as_it_is
    assert library.classify(tmp_path / "turned.png", exif=True) == upright
    turning = artifact_of("host", TRANSFORMERS_PREPROCESSING, SIDE, tmp_path / "turning")
    assert Library(turning.folder).describe().exif is True


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 10}, "format"),
        ({"matrix": 2}, "matrix"),
        ({"rotation": 45}, "rotation"),
        ({"mirrored": 2}, "mirrored"),
        ({"width": 0}, "size"),
        ({"height": 16385}, "size"),
        ({"width": 41}, "stride"),
        ({"planes": ()}, "NULL"),
    ],
)
def test_a_wrong_frame_gets_a_sentence(
    library: Library, change: dict[str, object], words: str
) -> None:
    frame = replace(Frame.of(np.zeros((30, 40, 3), np.uint8)), **change)
    sentence = {"size": "a side is 0, too long, or odd"}.get(words, words)
    with pytest.raises(DeployError, match=sentence):
        library.run_frame(frame)


@pytest.mark.parametrize(
    "count", [300, pytest.param(10_000, marks=pytest.mark.slow)], ids=["some", "many"]
)
def test_frames_at_random_never_crash(count: int, tmp_path: Path) -> None:
    """Any field may be wrong; the memory is just what the frame and the header say."""
    program = Program("host", ORIGINAL_PREPROCESSING, SIDE, tmp_path)
    accepted = int(program.run("random", str(count)))
    assert count / 4 < accepted < count


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="apt-get install valgrind")
def test_valgrind_finds_nothing(tmp_path: Path) -> None:
    """Pictures must not depend on bytes that nobody wrote; valgrind knows AVX2, not AVX-512."""
    prepare = Prepare("x86-64-v3", ORIGINAL_PREPROCESSING, SIZE, tmp_path)
    rng = np.random.default_rng(9)
    frames = [Frame.of(random_picture(rng, *random_size(rng, 900))) for _ in range(30)]
    for kind in YUV:
        width, height = (2 * side for side in random_size(rng, 300))
        frames += [
            replace(random_yuv(rng, kind, width, height), rotation=turn) for turn in (0, 90, 180)
        ]
    prepare.prefix = ("valgrind", "--quiet", "--error-exitcode=9")
    prepare(frames)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: apt-get install gcc")
def test_address_and_undefined_behaviour_sanitizers_find_nothing(tmp_path: Path) -> None:
    toolchain = find_toolchain(get_target("host"))
    network = SmallNetwork.random(seed=0)
    program = network.program(toolchain, tmp_path / "kernels")
    generate_sources(program, toolchain, network.self_test(), tmp_path)
    names = ("program", "library", "tasks", "digest", "threads", *map(_stem, FRAME_SOURCES))
    sources = [*(f"{name}.c" for name in names), "constants.c", "small_kernels.o"]
    flags = ["-std=gnu11", "-O1", "-march=native", "-fsanitize=address,undefined", "-lpthread"]
    definitions = ["-fno-sanitize-recover=all", "-DMODEL=small", '-DHEADER="small.h"', "-I."]
    main = str(Path(__file__).with_name("frames.c"))
    command = ["cc", *flags, *definitions, main, *sources, "-o", "sanitized"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=600)
    assert int(run(tmp_path / "sanitized", arguments=("random", "500"))) > 100


def _stem(source: str) -> str:
    return Path(source).stem
