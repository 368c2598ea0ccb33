"""The QDQ model: its form, and its arithmetic against our own in float64."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from levit_deploy.calibration.choose_scales import choose_scales
from levit_deploy.calibration.quantize import quantize
from levit_deploy.calibration.recipe import RECIPES
from levit_deploy.errors import DeployError
from levit_deploy.export.exported import ExportedModel
from levit_deploy.network.network import Conv, Linear, Precision
from tests.calibration.running import run, signal_to_noise_db


@pytest.fixture(scope="module", params=list(RECIPES))
def table(request, exported, statistics, pictures):
    return choose_scales(exported, statistics, pictures, RECIPES[request.param])


@pytest.fixture(scope="module")
def quantized(exported, table):
    return quantize(exported, table)


@pytest.fixture
def images(pictures):
    rng = np.random.default_rng(1)
    return rng.standard_normal((4, 3, pictures.image_size, pictures.image_size), np.float32)


def test_the_model_is_valid_and_marked_int8(quantized, tmp_path):
    quantized.save(tmp_path / "q.onnx")
    onnx.checker.check_model(tmp_path / "q.onnx", full_check=True)
    loaded = ExportedModel.load(tmp_path / "q.onnx")
    assert loaded.precision is Precision.INT8
    assert loaded == quantized


def test_weights_are_int8_and_no_float_copy_is_left(exported, quantized):
    constants = {tensor.name: tensor for tensor in quantized.graph.graph.initializer}
    layers = [layer for layer in exported.network.layers() if isinstance(layer, Linear)]
    assert len(layers) == 23
    for layer in layers:
        weight = constants.pop(f"{layer.name}.weight")
        assert weight.data_type == TensorProto.INT8
        assert 95 < np.abs(numpy_helper.to_array(weight).astype(int)).max() <= 127
    first, *inner = (layer for layer in exported.network.layers() if isinstance(layer, Conv))
    for layer in inner:
        kinds = TensorProto.INT8, TensorProto.INT16
        assert constants.pop(f"{layer.name}.weight").data_type in kinds
    constants.pop(f"{first.name}.weight")
    for name, tensor in constants.items():
        if tensor.data_type == TensorProto.FLOAT and not name.endswith("attention_bias"):
            assert max(tensor.dims, default=1) == np.prod(tensor.dims), name


def test_readers_of_one_tensor_share_its_quantization(quantized):
    nodes = [n for n in quantized.graph.graph.node if n.op_type == "QuantizeLinear"]
    inputs = [node.input[0] for node in nodes]
    assert len(set(inputs)) == len(inputs) > 0


def test_each_layer_computes_what_the_contract_says(quantized, table, images):
    """Integer sums of q - zero_point and w, one scale for each output, then the bias."""
    constants = {t.name: numpy_helper.to_array(t) for t in quantized.graph.graph.initializer}
    nodes = {node.name: node for node in quantized.graph.graph.node}
    layers = {layer.layer: layer for layer in table.layers}
    checked = 0
    for tensor in table.tensors:
        for reader in tensor.readers:
            dequantized = nodes[f"{reader}.matmul"].input[0]
            stored = dequantized.replace(".dequantized", ".quantized")
            name = dequantized.removesuffix(".dequantized")
            output = nodes[f"{reader}.matmul"].output[0]
            bias = f"{reader}.bias"
            summed = next(n.output[0] for n in nodes.values() if bias in n.input)
            got = run(quantized.graph, images, [name, stored, output, summed])

            factors = np.array(tensor.factors or [1.0], np.float32).astype(np.float64)
            steps = np.rint(got[name] * factors / np.float64(np.float32(tensor.scale)))
            expected = np.clip(steps + tensor.zero_point, 0, 255)
            off = np.abs(got[stored].astype(int) - expected)
            assert off.max() <= 1  # a tie may fall either way in float32
            assert (off > 0).sum() <= max(2, 1e-3 * off.size)

            weight = constants[f"{reader}.weight"].astype(np.int64)
            sums = (got[stored].astype(np.int64) - tensor.zero_point) @ weight
            scales = np.array(layers[reader].scales) * tensor.scale
            product = sums * scales
            bound = np.abs(got[output]).max()
            np.testing.assert_allclose(got[output], product, atol=1e-5 * bound)
            np.testing.assert_allclose(
                got[summed], product + constants[bias], atol=2e-5 * max(bound, 1)
            )
            checked += 1
    assert checked == len(layers)


def test_each_convolution_computes_what_the_contract_says(quantized, table, images):
    """Steps of q and w, whose exact sum is scaled once for each output channel."""
    constants = {t.name: numpy_helper.to_array(t) for t in quantized.graph.graph.initializer}
    assert len(table.stem) == 3
    for scale in table.stem:
        stored = f"{scale.tensor}.quantized"
        got = run(quantized.graph, images, [scale.tensor, stored, scale.layer])
        factors = np.array(scale.factors).reshape(1, -1, 1, 1)
        steps = np.rint(got[scale.tensor] * factors / scale.scale)
        off = np.abs(got[stored] - np.clip(steps, -scale.largest_step, scale.largest_step))
        assert off.max() <= 1  # a tie may fall either way in float32
        assert (off > 0).mean() < 0.05

        q = torch.from_numpy(got[stored].astype(np.float64))
        w = torch.from_numpy(constants[f"{scale.layer}.weight"].astype(np.float64))
        sums = torch.nn.functional.conv2d(q, w, stride=2, padding=1).numpy()
        worth = np.array(scale.scales).reshape(1, -1, 1, 1) * scale.scale
        bias = constants[f"{scale.layer}.bias"].reshape(1, -1, 1, 1)
        bound = np.abs(got[scale.layer]).max()
        np.testing.assert_allclose(got[scale.layer], sums * worth + bias, atol=1e-5 * bound)


def test_the_logits_stay_close(exported, quantized, images):
    reference = run(exported.graph, images, ["logits"])["logits"]
    assert signal_to_noise_db(reference, run(quantized.graph, images, ["logits"])["logits"]) > 20


def test_a_table_for_other_weights_is_refused(exported, table):
    with pytest.raises(DeployError, match="is for weights `cdcdcdcdcdcd`"):
        quantize(exported, replace(table, weights_digest="cd" * 32))


def test_an_int8_model_is_refused(quantized, table):
    with pytest.raises(DeployError, match="`levit_tiny` is already int8"):
        quantize(quantized, table)


def test_the_float_model_is_left_as_it_is(exported, table):
    before = exported.graph.SerializeToString(deterministic=True)
    quantize(exported, table)
    assert exported.graph.SerializeToString(deterministic=True) == before
