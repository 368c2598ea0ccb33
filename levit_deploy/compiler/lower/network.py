"""Network -> FlatProgram: block by block, each type of block by its own function.

Every block is a branch and the linear layer that ends it, whose sum with the block's input, if the
block has a residual, is the stream that the next block reads.
"""

from __future__ import annotations

from levit_deploy.compiler.flat_program import FlatProgram
from levit_deploy.compiler.kernels.kernel import Activation
from levit_deploy.compiler.lower.attention import lower_attention
from levit_deploy.compiler.lower.calls import Calls, Tensor
from levit_deploy.compiler.lower.head import lower_head
from levit_deploy.compiler.lower.linear import lower_linear
from levit_deploy.compiler.lower.stem import lower_stem
from levit_deploy.compiler.tiles.table import TileTable
from levit_deploy.models.spec import Activation as NetworkActivation
from levit_deploy.models.spec import Normalization
from levit_deploy.network.network import (
    Attention,
    Block,
    Mlp,
    Network,
    ShrinkingAttention,
    writing_layer,
)
from levit_deploy.targets.target import Target

_ACTIVATIONS = {
    NetworkActivation.HARD_SWISH: Activation.HARDSWISH,
    NetworkActivation.SILU: Activation.SILU,
    NetworkActivation.RELU: Activation.RELU,
    NetworkActivation.GELU: Activation.GELU,
}


def lower_network(
    network: Network, name: str, target: Target, tiles: TileTable, normalization: Normalization
) -> FlatProgram:
    """The calls that compute a rounded network. `name` starts every symbol; `tiles` says how each
    kernel is cut; `normalization`: of 8-bit images.

    Raises DeployError, naming the layer, if there is no kernel for it.
    """
    calls = Calls(name, target, tiles, normalization, _ACTIVATIONS[network.activation])
    x = lower_stem(calls, network.stem, network.image_size)
    *blocks, last = network.blocks
    for block in blocks:
        hidden = _branch(calls, block, x)
        x = lower_linear(calls, writing_layer(block), hidden, residual=_residual(block, x))
    hidden = _branch(calls, last, x)
    logits = lower_head(calls, network.head, writing_layer(last), hidden, _residual(last, x))
    return calls.finish(logits.value)


def _branch(calls: Calls, block: Block, x: Tensor) -> Tensor:
    """The block up to the layer that ends it."""
    match block:
        case Mlp():
            return lower_linear(calls, block.expand, x, activation=calls.activation)
        case Attention() | ShrinkingAttention():
            return lower_attention(calls, block, x)


def _residual(block: Block, x: Tensor) -> Tensor | None:
    return None if isinstance(block, ShrinkingAttention) else x
