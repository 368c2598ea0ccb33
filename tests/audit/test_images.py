"""The images of an audit: what their classes are called, and whose labels count."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from levit_deploy.audit.images import open_audit_images
from levit_deploy.models.checkpoint import Checkpoint, load_checkpoint
from levit_deploy.models.demo import DemoSplit, demo_images
from levit_deploy.models.spec import TINY
from tests.models.libraries import transformers_model, transformers_processor


def of_classes(checkpoint: Checkpoint, classes: int) -> Checkpoint:
    return replace(checkpoint, spec=replace(checkpoint.spec, classes=classes))


def test_folders_name_the_classes(tiny: Checkpoint, tmp_path: Path):
    for name in ("newt", "Eft", "axolotl"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "newt" / "1.png")
    images = open_audit_images(str(tmp_path), of_classes(tiny, 3), skip_broken=False, maximum=None)
    assert images.class_names == ("Eft", "axolotl", "newt")
    labels = images.read([0]).labels
    assert labels is not None
    assert images.class_names[labels[0]] == "newt"


def test_the_demo_has_names_and_an_array_has_none(tiny: Checkpoint, tmp_path: Path):
    demo = open_audit_images("demo", tiny, skip_broken=False, maximum=16)
    assert demo.class_names == demo_images(DemoSplit.TEST).classes
    file = tmp_path / "images.npz"
    np.savez(file, images=np.zeros((3, 8, 8, 3), np.uint8), labels=[0, 1, 2])
    array = open_audit_images(str(file), tiny, skip_broken=False, maximum=None)
    assert (array.labelled, array.class_names) == (True, ())


@pytest.mark.parametrize("classes", [7, 1000])
def test_labels_of_the_demo_say_nothing_about_other_classes(tiny: Checkpoint, classes: int):
    images = open_audit_images("demo", of_classes(tiny, classes), skip_broken=False, maximum=16)
    assert (images.labelled, images.class_names) == (False, ())
    assert images.read([0]).labels is None


@pytest.mark.parametrize(
    "processor",
    [
        {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"shortest_edge": 64}},
        {"size": {"height": 64, "width": 64}, "resample": 2, "do_center_crop": False},
        {"size": {"shortest_edge": 64}},
    ],
    ids=["mean", "squash", "default"],
)
def test_the_model_sees_what_its_own_processor_makes(processor: dict[str, Any], tmp_path: Path):
    """Pictures of the model's size go through all of it too, and JPEG files by another name."""
    transformers_model(TINY).inner.save_pretrained(tmp_path / "weights")
    theirs = transformers_processor(crop_size={"height": 64, "width": 64}, **processor)
    theirs.save_pretrained(tmp_path / "weights")
    checkpoint, rng = load_checkpoint(tmp_path / "weights"), np.random.default_rng(0)
    files = [f"{number}/{name}" for number in range(10) for name in ("a.png", "b.jfif")]
    for file, size in zip(files, 10 * [(64, 64), (200, 100)], strict=True):
        path = tmp_path / "photos" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, "PNG" if path.suffix == ".png" else "JPEG")
    (tmp_path / "photos" / "preview.png").write_bytes(b"")
    images = open_audit_images(
        str(tmp_path / "photos"), checkpoint, skip_broken=False, maximum=None
    )
    loaded = images.read(range(len(files)))
    assert list(loaded.names) == files
    assert loaded.labels is not None
    assert loaded.labels.tolist() == [int(file[0]) for file in files]
    assert any("preview.png" in note for note in images.notes)
    for file, ours in zip(files, loaded.images.floats, strict=True):
        with Image.open(tmp_path / "photos" / file) as picture:
            expected = theirs(picture, return_tensors="np")["pixel_values"][0]
        np.testing.assert_allclose(ours, expected, atol=1e-6)
