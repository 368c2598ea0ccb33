"""The demonstration: LeViT-128S as trained, on images that it never saw."""

from pathlib import Path

import pytest

from levit_deploy.deploy import deploy
from levit_deploy.models.spec import get_spec
from levit_deploy.models.weights import load_weights
from levit_deploy.records import to_json
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import find_toolchain
from levit_deploy.verify.model_of import reference_of
from levit_deploy.verify.verification import verify_artifact
from tests.machine import prefix_for


@pytest.mark.slow
@pytest.mark.parametrize(("name", "images"), [("host", 500), ("arm64", 8), ("armv7", 8)])
def test_the_demo_agrees_with_the_reference(name: str, images: int, tmp_path: Path):
    target = get_target(name)
    prefix_for(target)
    checkpoint = load_weights(get_spec("levit_128s"), "demo")
    artifact = deploy(checkpoint, find_toolchain(target), tmp_path).artifact
    verification = verify_artifact(artifact, reference_of(artifact, checkpoint), images=images)
    assert verification, to_json(verification)
    for check in verification.checks:
        assert check.comparison is not None
        assert check.comparison.same_top1 == images
