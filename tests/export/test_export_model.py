"""Whole exports against the PyTorch reference, run by ONNX Runtime."""

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from levit_deploy.errors import DeployError
from levit_deploy.export.agreement import check_against_reference
from levit_deploy.export.export_model import export_model, with_network
from levit_deploy.models.images import model_input
from levit_deploy.models.reference import Levit
from levit_deploy.models.spec import FAMILY, TINY
from tests.randomize import randomize


def export(net):
    return export_model(net, name=net.spec.name, weights_digest="0" * 64)


def run(exported, images):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(exported.graph.SerializeToString(), options)
    return np.concatenate([session.run(["logits"], {"image": i[None]})[0] for i in images])


def in_float64(net, images):
    with torch.inference_mode():
        return net.double()(torch.from_numpy(images).double()).numpy()


def assert_agrees(net, images, share_of_range=1e-5):
    """With PyTorch in float64, which has no rounding of its own to speak of."""
    logits = run(export(net), images)
    expected = in_float64(net, images)
    assert np.abs(logits - expected).max() < share_of_range * np.ptp(expected)


def noise(size, count=3):
    return np.random.default_rng(7).standard_normal((count, 3, size, size), dtype=np.float32)


def test_random_tiny(random_tiny):
    assert_agrees(random_tiny, noise(64))


def test_trained_tiny_gives_the_logits_of_its_training(trained_tiny, data_dir):
    with (
        np.load(data_dir / "val_2000.npz") as data,
        np.load(data_dir / "levit_tiny_ref_logits_val2000.npz") as reference,
    ):
        images = model_input(data["images"][:300], TINY)
        expected = reference["logits"][:300]
    logits = run(export(trained_tiny), images)
    assert np.abs(logits - expected).max() < 1e-5 * np.ptp(expected)
    assert (logits.argmax(1) == expected.argmax(1)).all()


@pytest.mark.parametrize("distilled", [True, False])
@pytest.mark.parametrize(
    ("image_size", "classes"), [(16, 10), (48, 10), (80, 3), (112, 10), (128, 2)]
)
def test_sizes_classes_and_heads(image_size, classes, distilled):
    spec = replace(TINY, image_size=image_size, classes=classes, distilled=distilled)
    net = randomize(Levit(spec), seed=image_size)
    exported = export(net)
    assert (exported.image_size, exported.classes) == (image_size, classes)
    assert_agrees(net, noise(image_size))


def test_one_class():
    net = randomize(Levit(replace(TINY, classes=1)), seed=3)
    logits = run(export(net), noise(64))
    np.testing.assert_allclose(logits, in_float64(net, noise(64)), rtol=1e-4, atol=1e-5)


def test_hostile_statistics():
    net = randomize(Levit(TINY), seed=5)
    with torch.no_grad():
        net.patch_embed[6].bn.weight[2] *= 1000
        for mlp in (net.blocks[1].m, net.blocks[3].m):
            mlp[0].bn.running_mean[1] = 1e3
            mlp[0].bn.running_var[1] = 1e-12
    assert_agrees(net, noise(64), share_of_range=1e-4)


@pytest.mark.parametrize(
    ("name", "image_size"),
    [
        ("levit_128s", 224),
        *(
            pytest.param(name, 224, marks=pytest.mark.slow)
            for name in FAMILY
            if name != "levit_128s"
        ),
        *(pytest.param("levit_128s", size, marks=pytest.mark.slow) for size in (208, 240, 256)),
    ],
)
def test_family(name, image_size):
    net = randomize(Levit(replace(FAMILY[name], image_size=image_size)), seed=11)
    assert_agrees(net, noise(image_size, count=2))


def test_the_same_weights_give_the_same_bytes(random_tiny):
    def exported_bytes():
        return export(random_tiny).graph.SerializeToString(deterministic=True)

    assert exported_bytes() == exported_bytes()


def test_with_its_own_network_an_export_stays_the_same(random_tiny):
    exported = export(random_tiny)
    assert with_network(exported, exported.network) == exported


def test_the_network_is_left_as_it_was(random_tiny):
    before = {name: value.clone() for name, value in random_tiny.state_dict().items()}
    export(random_tiny)
    after = random_tiny.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_weights_out_of_range_are_refused(random_tiny):
    with torch.no_grad():
        random_tiny.blocks[0].m.qkv.bn.running_var[0] = -1.0
    with pytest.raises(DeployError, match=r"`blocks\.0\.m\.qkv\.weight` is not finite"):
        export(random_tiny)


def test_a_graph_of_other_weights_is_refused(random_tiny, trained_tiny):
    exported = export(random_tiny)
    assert check_against_reference(exported, random_tiny, noise(64)) < 1e-6
    with pytest.raises(DeployError, match=r"differs from the PyTorch reference by `\d"):
        check_against_reference(exported, trained_tiny, noise(64))
