"""The shipped network on real images: what 8 bits cost it, with outlier channels too."""

import numpy as np
import pytest

from levit_deploy.calibration.image_set import open_images
from levit_deploy.calibration.quantize_model import quantize_model
from levit_deploy.calibration.recipe import DEFAULT_RECIPE
from levit_deploy.export.export_model import export_model
from levit_deploy.models.demo import DemoSplit, demo_images
from levit_deploy.models.images import model_input
from levit_deploy.models.spec import get_spec
from levit_deploy.models.weights import load_weights
from tests.calibration.running import run, signal_to_noise_db
from tests.outlier_channels import with_outlier_channels

TEST_IMAGES = 200


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.0, 2.0])
@pytest.mark.parametrize("images", [32, 512])
def test_the_demonstration_net_keeps_its_answers(sigma, images):
    checkpoint = load_weights(get_spec("levit_128s"), "demo")
    net = with_outlier_channels(checkpoint.build(), sigma, seed=0)
    exported = export_model(net, name="levit_128s", weights_digest=checkpoint.digest)
    pictures = open_images("demo", checkpoint.preprocessing, 224, maximum=images)
    quantized, _ = quantize_model(exported, pictures, DEFAULT_RECIPE)

    seen = model_input(demo_images(DemoSplit.TEST).images[:TEST_IMAGES], checkpoint.spec)
    expected, got = (
        run(model.graph, seen, ["logits"])["logits"] for model in (exported, quantized)
    )
    assert signal_to_noise_db(expected, got) > 38
    assert np.mean(expected.argmax(axis=1) == got.argmax(axis=1)) >= 0.985
