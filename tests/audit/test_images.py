"""The images of an audit: what their classes are called, and whose labels count."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from levit_deploy.audit.images import open_audit_images
from levit_deploy.models.checkpoint import Checkpoint
from levit_deploy.models.demo import DemoSplit, demo_images


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
