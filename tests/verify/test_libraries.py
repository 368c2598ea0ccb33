"""Models of timm and transformers through the whole chain: the library says what they say."""

from pathlib import Path

import numpy as np
import pytest
import torch

from levit_deploy.deploy import deploy
from levit_deploy.models.checkpoint import load_checkpoint
from levit_deploy.models.preprocessing import ORIGINAL_PREPROCESSING
from levit_deploy.models.rounding_cost import rounding_cost
from levit_deploy.models.spec import FAMILY, TINY, ModelSpec
from levit_deploy.runtime.loader import Library
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import find_toolchain
from levit_deploy.verify.comparison import compare
from levit_deploy.verify.images import real_images
from levit_deploy.verify.tolerance import CLOSE
from tests.models.test_libraries import Save, every_library


def check(spec: ModelSpec, save: Save, folder: Path) -> None:
    theirs, path = save(spec, folder)
    toolchain = find_toolchain(get_target("host"))
    checkpoint = load_checkpoint(path, spec)
    artifact = deploy(checkpoint, toolchain, folder).artifact
    images = real_images(spec, 4, ORIGINAL_PREPROCESSING)
    library = Library(artifact.folder)
    ours = np.stack([library.run(image) for image in images.floats])
    with torch.inference_mode():
        expected = theirs(torch.from_numpy(images.floats)).numpy()
    close = CLOSE.of(rounding_cost(checkpoint.build(), images.floats))
    comparison = compare(expected, ours, close)
    assert comparison, comparison.describe()


@every_library
def test_tiny(save: Save, tmp_path: Path) -> None:
    check(TINY, save, tmp_path)


@pytest.mark.slow
@every_library
@pytest.mark.parametrize("name", FAMILY)
def test_family(name: str, save: Save, tmp_path: Path) -> None:
    check(FAMILY[name], save, tmp_path)
