"""The graph's form and names, which the compiler, the quantizer and the audit rely on."""

import re

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from levit_deploy.errors import DeployError
from levit_deploy.export.write_network import write_network
from levit_deploy.models.reference import Levit
from levit_deploy.models.spec import TINY
from levit_deploy.network.fold_model import fold_model
from levit_deploy.network.network import rounded
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
    nodes = write_network(rounded(fold_model(random_tiny))).graph.node
    assert " ".join(n.op_type for n in nodes if re.fullmatch(names, n.name)) == operators


def test_each_tensor_is_what_the_module_of_its_name_computes(random_tiny):
    model = write_network(rounded(fold_model(random_tiny)))
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
        rounded(fold_model(net))
