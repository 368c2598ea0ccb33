"""The graph's form and names, which the compiler, the quantizer and the audit rely on."""

import re
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from levit_deploy.export.fold_model import fold_model
from levit_deploy.export.graph import build_graph
from levit_deploy.export.read_graph import read_graph
from levit_deploy.export.structure import simplify

from levit_deploy.errors import DeployError
from levit_deploy.models.reference import Levit
from levit_deploy.models.spec import TINY
from tests.randomize import randomize

LINEAR = "MatMul Add"
GROUPS = {
    r"patch_embed\..*": "Conv HardSwish Conv HardSwish Conv HardSwish Conv Reshape Transpose",
    r"blocks\.0(\..*)?": f"{LINEAR} Reshape Transpose Split Transpose MatMul Add Softmax MatMul "
    f"Transpose Reshape HardSwish {LINEAR} Add",
    r"blocks\.1(\..*)?": f"{LINEAR} HardSwish {LINEAR} Add",
    r"blocks\.2(\..*)?": f"{LINEAR} Reshape Transpose Split Reshape Slice Reshape {LINEAR} "
    "Reshape Transpose Transpose MatMul Add Softmax MatMul Transpose Reshape HardSwish "
    f"{LINEAR}",
    r"head\..*|logits": f"ReduceMean {LINEAR}",
}


@pytest.mark.parametrize(("names", "operators"), GROUPS.items())
def test_operators_of_each_group(random_tiny, names, operators):
    nodes = build_graph(fold_model(random_tiny)).graph.node
    assert " ".join(n.op_type for n in nodes if re.fullmatch(names, n.name)) == operators


def test_each_tensor_is_what_the_module_of_its_name_computes(random_tiny):
    model = build_graph(fold_model(random_tiny))
    tensors = {name for node in model.graph.node for name in node.output}
    computed = {}
    for name, module in random_tiny.named_modules():
        if name in tensors:
            module.register_forward_hook(
                lambda _m, _i, out, name=name: computed.update({name: out})
            )
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        random_tiny(image)
    assert len(computed) == 49
    names = [name for name in computed if not name.endswith((".qkv", ".q.1"))]  # q is scaled there
    assert len(names) == 44
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for name, value in zip(names, session.run(names, {"image": image.numpy()}), strict=True):
        expected = computed[name].numpy()
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_weight_too_large_for_float32_is_refused_by_name():
    net = randomize(Levit(TINY), seed=0)
    with torch.no_grad():
        net.blocks[1].m[0].c.weight.fill_(3e38)
        net.blocks[1].m[0].bn.weight.fill_(100)
    with pytest.raises(DeployError, match=r"`blocks\.1\.m\.0\.weight` is not finite in float32"):
        build_graph(fold_model(net))


@pytest.mark.parametrize("spec", [TINY, replace(TINY, image_size=80, distilled=False)])
def test_reading_a_graph_is_the_inverse_of_building_it(spec):
    model = build_graph(fold_model(randomize(Levit(spec), seed=1)))
    again = build_graph(read_graph(simplify(model)))
    assert again.SerializeToString(deterministic=True) == model.SerializeToString(
        deterministic=True
    )


def test_a_graph_without_a_bias_is_refused_by_name(random_tiny):
    model = build_graph(fold_model(random_tiny))
    for constant in model.graph.initializer:
        if constant.name == "blocks.3.m.2.bias":
            constant.name = "elsewhere"
    with pytest.raises(DeployError, match=r"no constant `blocks\.3\.m\.2\.bias`"):
        read_graph(model)
