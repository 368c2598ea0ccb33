"""From an artifact back to the models that it was compiled from."""

import pytest

from levit_deploy.deploy import Deployment
from levit_deploy.errors import DeployError
from levit_deploy.models.checkpoint import Checkpoint
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.verify.expectation import Reference, expect
from levit_deploy.verify.images import real_images
from levit_deploy.verify.model_of import quantized_model_of, reference_of, table_of
from levit_deploy.verify.verification import verify_artifact


def test_the_table_is_one_of_the_files(int8_deployment: Deployment):
    artifact = Artifact.load(int8_deployment.artifact.folder)
    assert artifact.calibration_table == artifact.folder / "calibration.json"
    table = table_of(artifact)
    assert table is not None
    assert table.weights_digest == artifact.manifest.weights_digest


def test_the_table_makes_the_8_bit_model_again(int8_deployment: Deployment, tiny: Checkpoint):
    first = quantized_model_of(int8_deployment.artifact, tiny)
    second = quantized_model_of(Artifact.load(int8_deployment.artifact.folder), tiny)
    assert first is not None
    assert second is not None
    assert first.graph.SerializeToString() == second.graph.SerializeToString()
    assert any(node.op_type == "QuantizeLinear" for node in first.graph.graph.node)


def test_verify_holds_the_library_against_that_model(int8_deployment: Deployment, tiny: Checkpoint):
    artifact = Artifact.load(int8_deployment.artifact.folder)
    again = verify_artifact(artifact, reference_of(artifact, tiny), images=2)
    assert again
    assert again.reference == int8_deployment.verification.reference
    assert again.reference == "8-bit model in ONNX Runtime"


def test_a_float_artifact_has_no_table(host_artifact: Artifact, tiny: Checkpoint):
    assert table_of(host_artifact) is None
    assert quantized_model_of(host_artifact, tiny) is None


def test_without_its_table_an_8_bit_library_is_not_judged(
    int8_deployment: Deployment, tiny: Checkpoint
):
    images = real_images(tiny.spec, 1, tiny.preprocessing)
    with pytest.raises(DeployError, match="calibration table; both are missing"):
        expect(Reference.of_weights(tiny), int8_deployment.artifact.manifest.precision, images)
