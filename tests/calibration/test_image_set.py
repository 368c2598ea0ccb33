"""Sources of pictures: order, digest, preprocessing, and everything that can be wrong with them."""

import errno
import io
import os
import pickle
import struct
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers.image_utils import load_image
from transformers.models.levit.image_processing_pil_levit import LevitImageProcessorPil

from levit_deploy.calibration.image_set import MIN_IMAGES, find_pictures, open_images
from levit_deploy.calibration.pictures import FolderPictures
from levit_deploy.errors import DeployError
from levit_deploy.models.checkpoint import load_checkpoint
from levit_deploy.models.demo import DemoSplit, demo_images
from levit_deploy.models.images import rgb8_input
from levit_deploy.models.pictures import model_sized, package_pictures
from levit_deploy.models.preprocessing import (
    DEMO_PREPROCESSING,
    ORIGINAL_PREPROCESSING,
    TIMM_PREPROCESSING,
    Resize,
)
from levit_deploy.models.spec import TINY
from tests.models.libraries import transformers_model


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path, rng):
    """18 pictures in two class folders, of two formats, beside what is no picture."""
    for index in range(18):
        pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        name = f"{'cat' if index % 2 else 'dog'}/{index:02}.{'png' if index % 3 else 'JPG'}"
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("none")
    (tmp_path / ".hidden.png").write_text("none")
    return tmp_path


def test_a_folder_in_the_order_of_its_paths(folder):
    images = open_images(str(folder), ORIGINAL_PREPROCESSING, 32)
    assert len(images) == 18
    assert images.labels.tolist() == [0] * 9 + [1] * 9  # cat, dog
    first = np.asarray(Image.open(folder / "cat/01.png"))
    assert np.array_equal(next(iter(images)), model_sized(first, ORIGINAL_PREPROCESSING, 32))
    assert images.preprocessing.startswith("original: shorter side bicubic to 36, centre 32")


def test_the_digest_is_of_content_and_order(folder):
    digest = open_images(str(folder), ORIGINAL_PREPROCESSING, 32).digest
    assert open_images(str(folder), TIMM_PREPROCESSING, 64).digest == digest
    (folder / "cat/01.png").rename(folder / "cat/00.png")
    assert open_images(str(folder), ORIGINAL_PREPROCESSING, 32).digest == digest
    (folder / "cat/00.png").rename(folder / "dog/99.png")
    assert open_images(str(folder), ORIGINAL_PREPROCESSING, 32).digest != digest


def test_all_kinds_of_pictures_become_rgb(folder):
    Image.new("L", (40, 40), 9).save(folder / "cat/grey.png")
    Image.new("RGBA", (40, 40), (1, 2, 3, 0)).save(folder / "cat/transparent.png")
    Image.new("CMYK", (40, 40)).save(folder / "cat/print.jpg")
    Image.new("P", (40, 40)).save(folder / "cat/palette.gif")
    pictures = list(open_images(str(folder), ORIGINAL_PREPROCESSING, 32))
    assert {(p.shape, p.dtype) for p in pictures} == {((32, 32, 3), np.dtype(np.uint8))}


@pytest.mark.parametrize("size", [(300, 257), (256, 256), (224, 501), (100, 90), (224, 224)])
def test_original_preprocessing_is_that_of_transformers(rng, size):
    """But where a margin is odd: there torchvision, as the original, may cut one pixel later."""
    picture = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    processor = LevitImageProcessorPil(do_rescale=False, do_normalize=False)
    expected = processor(picture, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    got = model_sized(picture, ORIGINAL_PREPROCESSING, 224)
    assert np.array_equal(got, expected)


@pytest.mark.parametrize("size", [(300, 257), (257, 301), (224, 224), (101, 90), (333, 77)])
@pytest.mark.parametrize(
    "processor",
    [
        {},
        {"size": {"height": 224, "width": 224}, "resample": 2},
        {"size": {"height": 251, "width": 251}, "resample": 1},
        {"size": {"shortest_edge": 225}, "resample": 0},
    ],
    ids=str,
)
def test_transformers_preprocessing_is_its_processors_to_the_pixel(rng, size, processor, tmp_path):
    transformers_model(replace(TINY, image_size=224)).inner.save_pretrained(tmp_path)
    theirs = LevitImageProcessorPil(**processor)
    theirs.save_pretrained(tmp_path)
    way = load_checkpoint(tmp_path).preprocessing
    picture = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = theirs(picture, do_rescale=False, do_normalize=False, return_tensors="np")
    got = model_sized(picture, way, 224)
    assert np.array_equal(got, expected["pixel_values"][0].transpose(1, 2, 0))


def test_pictures_as_they_are(rng):
    way = replace(DEMO_PREPROCESSING, resize=Resize.NONE)
    picture = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert np.array_equal(model_sized(picture, way, 32), picture)
    with pytest.raises(DeployError, match="`32 x 32` is not of the model's size, 48"):
        model_sized(picture, way, 48)


def test_pictures_are_turned_as_their_tag_says_where_the_origin_does(tmp_path, rng):
    """transformers' own `load_image` turns them; torchvision and timm do not."""
    pixels = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(pixels).save(tmp_path / "1.png", exif=exif)
    turned = np.asarray(load_image(str(tmp_path / "1.png")))
    assert turned.shape == (6, 4, 3)
    assert np.array_equal(FolderPictures(tmp_path, exif=True).picture(0), turned)
    assert np.array_equal(FolderPictures(tmp_path).picture(0), pixels)


def test_demo_pictures_are_those_of_the_8_bit_entry():
    images = open_images("demo", DEMO_PREPROCESSING, 224, maximum=16)
    wanted = demo_images(DemoSplit.CALIBRATION).images[::32]
    expected = rgb8_input(wanted, 224)
    difference = np.stack(list(images)).astype(int) - expected
    assert np.abs(difference).max() <= 1  # Pillow rounds between its two directions


def test_a_maximum_takes_evenly_spaced_pictures(folder):
    images = open_images(str(folder), ORIGINAL_PREPROCESSING, 32, maximum=16)
    assert len(images) == 16
    assert images.labels.sum() == 8


def test_progress_is_told(folder):
    told = []
    open_images(
        str(folder),
        ORIGINAL_PREPROCESSING,
        32,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(n, 18) for n in range(1, 19)]


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n broken", b"GIF89a"])
def test_a_broken_picture_is_named_or_skipped(folder, content):
    (folder / "cat/broken.png").write_bytes(content)
    with pytest.raises(DeployError, match=r"cannot decode `.*cat/broken\.png`") as error:
        open_images(str(folder), ORIGINAL_PREPROCESSING, 32)
    assert "--skip-broken" in error.value.hint
    images = open_images(str(folder), ORIGINAL_PREPROCESSING, 32, skip_broken=True)
    assert (len(images), images.skipped) == (18, 1)


def test_a_picture_cut_off_is_broken(folder):
    whole = (folder / "cat/01.png").read_bytes()
    (folder / "cat/01.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DeployError, match=r"cat/01\.png"):
        open_images(str(folder), ORIGINAL_PREPROCESSING, 32)


def test_too_few_pictures_are_refused(folder):
    for name in ("00.JPG", "02.png", "04.png"):
        (folder / "dog" / name).write_bytes(b"")
    with pytest.raises(DeployError, match=f"only 15 images .* beside 3 broken ones.* {MIN_IMAGES}"):
        open_images(str(folder), ORIGINAL_PREPROCESSING, 32, skip_broken=True)


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(DeployError, match="no image files"):
        open_images(str(tmp_path), ORIGINAL_PREPROCESSING, 32)
    with pytest.raises(DeployError, match=r"no images at `.*nowhere`"):
        open_images(str(tmp_path / "nowhere"), ORIGINAL_PREPROCESSING, 32)


def test_arrays(tmp_path, rng):
    images = rng.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(20, dtype=np.int32))
    opened = open_images(str(tmp_path / "a.npz"), TIMM_PREPROCESSING, 32)
    expected = [model_sized(image, TIMM_PREPROCESSING, 32) for image in images]
    assert np.array_equal(np.stack(list(opened)), expected)
    assert opened.labels.tolist() == list(range(20))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": np.zeros((20, 8, 8, 3), np.uint8)}, "no array `images`"),
        ({"images": np.full((20, 8, 8, 3), np.nan, np.float32)}, "`images` .* is float32"),
        ({"images": np.zeros((20, 3, 8, 8), np.uint8)}, r"\(20, 3, 8, 8\), expected uint8"),
        ({"images": np.array([None, {}])}, "cannot read"),
        ({"images": np.zeros((20, 0, 8, 3), np.uint8)}, r"\(20, 0, 8, 3\), expected uint8"),
        (
            {"images": np.zeros((20, 8, 8, 3), np.uint8), "labels": np.zeros(19, int)},
            "`labels` .* expected integers",
        ),
    ],
)
def test_other_arrays_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DeployError, match=message):
        open_images(str(tmp_path / "a.npz"), ORIGINAL_PREPROCESSING, 32)


def damaged_npz(kind):
    """Bytes that are no array of pictures, or that claim to be too many."""
    file = io.BytesIO()
    match kind:
        case "cut off":
            return b"PK\x03\x04 and nothing more"
        case "pickle":
            return pickle.dumps({"images": 1})
        case "npy":
            np.save(file, np.zeros((20, 8, 8, 3), np.uint8))
        case "endless":
            header = {"descr": "|u1", "fortran_order": False, "shape": (10**9, 1000, 1000, 3)}
            with zipfile.ZipFile(file, "w") as archive, archive.open("images.npy", "w") as array:
                np.lib.format.write_array_header_1_0(array, header)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["cut off", "pickle", "npy", "endless"])
def test_a_damaged_npz_is_refused(tmp_path, kind):
    (tmp_path / "a.npz").write_bytes(damaged_npz(kind))
    with pytest.raises(DeployError, match="cannot read") as error:
        open_images(str(tmp_path / "a.npz"), ORIGINAL_PREPROCESSING, 32)
    assert "allow_pickle" not in error.value.message


def test_links_are_followed_but_not_in_circles(folder, tmp_path_factory):
    """A set made of links to the folders of another set, as people make subsets."""
    subset = tmp_path_factory.mktemp("subset")
    for name in ("cat", "dog"):
        (subset / name).symlink_to(folder / name)
    (subset / "again").mkdir()
    (subset / "again" / "above").symlink_to(subset)
    linked = FolderPictures(subset)
    assert len(linked) == len(FolderPictures(folder)) == 18
    assert linked.class_names == ("again", "cat", "dog")


def test_a_folder_that_cannot_be_read_is_named(folder, monkeypatch):
    """Not left out silently, with all the images of its class."""
    scandir = os.scandir

    def refusing(path):
        if Path(path).name == "dog":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)  # to root nothing is forbidden
    with pytest.raises(DeployError, match=r"cannot read `.*dog`: Permission denied") as error:
        FolderPictures(folder)
    assert error.value.hint == f"chmod -R u+rX {folder}"


def test_what_lies_beside_and_among_classes_is_left_out_and_told(folder):
    """A preview beside the class folders takes no labels away; camera files are pictures."""
    Image.new("RGB", (40, 40)).save(folder / "preview.png")
    Image.new("RGB", (40, 40)).save(folder / "cat" / "camera.jfif", "JPEG")
    (folder / "cat" / "video.mp4").write_bytes(b"moving")
    (folder / "dog" / ".DS_Store").write_bytes(b"desktop")
    (folder / "emu").mkdir()
    pictures = FolderPictures(folder)
    assert len(pictures) == 19
    assert pictures.labels.tolist() == [0] * 10 + [1] * 9
    assert pictures.notes == (
        "beside the folders of classes, left out: 1 (preview.png)",
        "no image files, left out: 1 (cat/video.mp4)",
        "without image files: 1 (emu)",
    )


def test_only_files_are_pictures(folder):
    """Opening the pipe would wait for ever."""
    (folder / "dog" / "folder.png").mkdir()
    os.mkfifo(folder / "dog" / "pipe.png")
    assert len(FolderPictures(folder)) == 18


def thin_png(width, height):
    """Black pixels; compressed, a file of a few bytes for each million of them."""
    deflate = zlib.compressobj()
    rows = [deflate.compress(bytes(width + 1)) for _ in range(height)]
    header = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", b"".join([*rows, deflate.flush()])), (b"IEND", b"")
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("size", [(80_000_000, 1), (1_000_000, 1), (1, 1_000_000), (257, 1)])
def test_a_picture_that_is_almost_a_line(folder, size):
    """Resized in proportion it would take gigabytes."""
    (folder / "dog" / "line.png").write_bytes(thin_png(*size))
    with pytest.raises(DeployError, match=rf"line.png`: it is {size[0]} x {size[1]}"):
        open_images(str(folder), ORIGINAL_PREPROCESSING, 32)
    images = open_images(str(folder), ORIGINAL_PREPROCESSING, 32, skip_broken=True)
    assert (len(images), images.skipped) == (18, 1)


def test_arrays_that_are_almost_lines(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", images=np.zeros((16, 1, 100_000, 3), np.uint8))
    with pytest.raises(DeployError, match="it is 1 x 100000"):
        open_images(str(tmp_path / "a.npz"), ORIGINAL_PREPROCESSING, 32)


@pytest.mark.parametrize("compressed", [True, False])
def test_any_byte_of_an_npz_may_be_wrong(tmp_path, rng, compressed):
    save = np.savez_compressed if compressed else np.savez
    file = tmp_path / "a.npz"
    save(file, images=rng.integers(0, 9, (16, 8, 8, 3), np.uint8), labels=np.arange(16))
    whole, refused = file.read_bytes(), 0
    for place in rng.integers(0, len(whole), 300):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.integers(8)
        file.write_bytes(damaged)
        try:
            find_pictures(str(file), DemoSplit.TEST, ORIGINAL_PREPROCESSING)
        except DeployError:
            refused += 1
    assert refused > 100


def test_folders_that_are_linked_across(folder):
    """Each picture is one, whatever leads to it."""
    for name, other in (("cat", "dog"), ("dog", "cat")):
        for number in range(3):
            (folder / name / f"link{number}").symlink_to(folder / other)
    assert len(FolderPictures(folder)) == 18


@pytest.mark.parametrize("target", ["/dev/zero", "pipe"])
def test_a_link_to_what_has_no_end(folder, target):
    os.mkfifo(folder / "pipe")
    (folder / "dog" / "endless.png").symlink_to(folder / target)
    with pytest.raises(DeployError, match=r"endless\.png"):
        open_images(str(folder), ORIGINAL_PREPROCESSING, 32)


def test_pictures_of_the_package_have_the_models_size_even_where_none_is_resized():
    way = replace(ORIGINAL_PREPROCESSING, resize=Resize.NONE)
    assert package_pictures(way, 48, 3, 3).shape == (3, 48, 48, 3)
    first = demo_images(DemoSplit.TEST).images[0]
    pictures = package_pictures(ORIGINAL_PREPROCESSING, 64, 1, 3)
    assert np.array_equal(pictures[0], model_sized(first, ORIGINAL_PREPROCESSING, 64))
