"""The shipped images and the two ways to a model's input."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from levit_deploy.models.demo import DemoSplit, demo_images
from levit_deploy.models.images import model_input, normalize, rgb8_input
from levit_deploy.models.spec import IMAGENET, TINY


@pytest.mark.parametrize(("split", "count"), [(DemoSplit.CALIBRATION, 512), (DemoSplit.TEST, 500)])
def test_splits_are_complete_and_labelled(split: DemoSplit, count: int) -> None:
    demo = demo_images(split)
    assert demo.images.shape == (count, 32, 32, 3)
    assert demo.images.dtype == np.uint8
    assert demo.labels.shape == (count,)
    assert len(demo.classes) == 10
    assert set(demo.labels.tolist()) == set(range(10))


def test_test_images_are_balanced_and_come_from_the_test_set(data_dir: Path) -> None:
    demo = demo_images(DemoSplit.TEST)
    assert np.bincount(demo.labels).tolist() == [50] * 10
    known = np.load(data_dir / "val_2000.npz")
    by_bytes = {i.tobytes(): n for i, n in zip(known["images"], known["labels"], strict=True)}
    assert [by_bytes[image.tobytes()] for image in demo.images] == demo.labels.tolist()


def test_calibration_images_are_not_test_images() -> None:
    test = {image.tobytes() for image in demo_images(DemoSplit.TEST).images}
    calibration = {image.tobytes() for image in demo_images(DemoSplit.CALIBRATION).images}
    assert not test & calibration


def test_normalize_against_float64() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    exact = (images / 255.0 - np.array(IMAGENET.mean)) / np.array(IMAGENET.std)
    ours = normalize(images, IMAGENET)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, exact.transpose(0, 3, 1, 2), atol=1e-6)


@pytest.mark.parametrize("size", [32, 48, 64, 224])
def test_rgb8_input_is_the_bilinear_filter_of_pillow(size: int) -> None:
    """Within one step of 255: Pillow rounds to 8 bits between its two passes."""
    images = demo_images(DemoSplit.TEST).images[:8]
    ours = rgb8_input(images, size)
    pillow = np.stack(
        [
            np.asarray(Image.fromarray(i).resize((size, size), Image.Resampling.BILINEAR))
            for i in images
        ]
    )
    assert np.abs(ours.astype(int) - pillow).max() <= 1


def test_both_ways_to_the_input_agree_to_the_rounding_of_8_bits() -> None:
    images = demo_images(DemoSplit.TEST).images[:8]
    floats = model_input(images, TINY)
    assert floats.shape == (8, 3, 64, 64)
    assert floats.dtype == np.float32
    from_rgb8 = normalize(rgb8_input(images, TINY.image_size), TINY.normalization)
    half_step = 0.5 / 255 / min(TINY.normalization.std)
    assert np.abs(floats - from_rgb8).max() <= half_step * 1.01
