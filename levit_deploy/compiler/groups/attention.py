"""Attention layers with the projections that make queries, keys and values.

Before, `attention`: x (1, N, C)
    qkv = linear(x); reshape (1, N, heads, 2 d + v); permute (0, 2, 1, 3); split(axis 3): q, k, v
    attend(q, k, v) of attention_forms; permute (0, 2, 1, 3); reshape (1, N, heads * v); hardswish
Before, `shrinking_attention`: the same with two projections,
    kv = linear(x); reshape; permute; split: k, v
    q  = linear(every second row and column of x as a square grid); reshape; permute
After:  gemm (one, or two) into PANELS layout, attention. Each projection may be float or 8 bits,
and so may the attention.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import isqrt

from tvm.ir import Expr
from tvm.relax.dpl import DFPattern, is_const, is_op, is_tuple_get_item, wildcard

from levit_deploy.compiler.groups.attention_forms import (
    attend_float,
    attend_int8,
    is_int8,
    rounds_as_kernel,
)
from levit_deploy.compiler.groups.group import Group, Parts
from levit_deploy.compiler.groups.kernel_calls import KernelCalls
from levit_deploy.compiler.groups.layer import LAYER_FORMS, Layer, LayerForm
from levit_deploy.compiler.groups.patterns import (
    Float32,
    array_of,
    hardswish,
    is_float32,
    permuted,
    shape_of,
)
from levit_deploy.compiler.kernels.attention import int8 as attention_int8
from levit_deploy.compiler.kernels.attention.float32 import attention_kernel
from levit_deploy.compiler.kernels.attention.spec import AttentionSpec, is_supported, pack_bias
from levit_deploy.compiler.kernels.gemm.spec import GemmSpec, Layout
from levit_deploy.compiler.kernels.kernel import Activation


def attention_groups() -> list[Group]:
    return [_attention_group(form, attend) for attend in _FORMS for form in LAYER_FORMS]


def shrinking_attention_groups() -> list[Group]:
    return [
        _shrinking_attention_group(kv, q, attend)
        for attend in _FORMS
        for kv in LAYER_FORMS
        for q in LAYER_FORMS
    ]


_Attend = Callable[
    [DFPattern, DFPattern, DFPattern, DFPattern], tuple[DFPattern, dict[str, DFPattern]]
]
_FORMS: dict[_Attend, str] = {attend_int8: "int8_", attend_float: ""}


def _attention_group(form: LayerForm, attend: _Attend) -> Group:
    x, table = wildcard(), is_const()
    qkv = form(x)
    split = is_op("relax.split")(_by_head(qkv.pattern))
    q, k, v = (is_tuple_get_item(split, index) for index in range(3))
    context, constants = attend(q, k, v, table)
    parts = {"x": x, **qkv.parts, **constants, "table": table, "split": split}
    plan = partial(_plan_attention, qkv)
    return Group(f"{qkv.form}{_FORMS[attend]}attention", _by_token(context), parts, plan)


def _shrinking_attention_group(kv_form: LayerForm, q_form: LayerForm, attend: _Attend) -> Group:
    x, table = wildcard(), is_const()
    kv = kv_form(x)
    split = is_op("relax.split")(_by_head(kv.pattern))
    k, v = (is_tuple_get_item(split, index) for index in range(2))
    slices = [wildcard() for _ in range(4)]
    grid = is_op("relax.reshape")(x, wildcard())
    every_second = is_op("relax.strided_slice")(grid, *slices)
    asking = q_form(is_op("relax.reshape")(every_second, wildcard()), "q_")
    context, constants = attend(_by_head(asking.pattern), k, v, table)
    parts = {
        "x": x,
        **kv.parts,
        **asking.parts,
        **constants,
        "table": table,
        "split": split,
        "slice": every_second,
    }
    name = f"{kv.form}kv_{asking.form}q_{_FORMS[attend]}shrinking_attention"
    return Group(name, _by_token(context), parts, partial(_plan_shrinking, kv, asking))


def _by_head(projected: DFPattern) -> DFPattern:
    return permuted(is_op("relax.reshape")(projected, wildcard()), 0, 2, 1, 3)


def _by_token(context: DFPattern) -> DFPattern:
    return hardswish(is_op("relax.reshape")(permuted(context, 0, 2, 1, 3), wildcard()))


@dataclass(frozen=True)
class _Projection:
    """One gemm in front of the attention."""

    layer: Layer
    spec: GemmSpec

    def emit(self, calls: KernelCalls, parts: Parts) -> Expr:
        return self.layer.emit(calls, self.spec, parts["x"], parts, (self.spec.output_size,))


@dataclass(frozen=True)
class _AttentionPlan:
    """`projections`: of qkv; or of the queries, then of kv."""

    spec: AttentionSpec
    projections: tuple[_Projection, ...]

    def emit(self, calls: KernelCalls, parts: Parts) -> Expr:
        spec = self.spec
        projected = [projection.emit(calls, parts) for projection in self.projections]
        int8 = is_int8(parts)
        if int8:
            tile = attention_int8.default_tile(spec, calls.target)
            bias = attention_int8.pack_bias(_table(parts), spec)
            kernel = attention_int8.attention_int8_kernel
        else:
            tile = calls.tiles.attention(spec, calls.target)
            bias = pack_bias(_table(parts), spec)
            kernel = attention_kernel
        assert bias is not None, "a plan exists only for a table that can be packed"
        words = ["attention" if spec.fused_qkv else "shrinking", *["int8"] * int8]
        words += [f"h{spec.heads}"]
        words += [f"q{spec.queries}", f"k{spec.keys}", f"d{spec.key_dim}", f"v{spec.value_dim}"]
        words += [f"b{tile.rows}", f"{tile.score_rows}x{tile.score_columns}"]
        words += [f"{tile.value_rows}x{tile.value_columns}"]
        return calls.call_storing(
            "_".join(words),
            lambda symbol, stored: kernel(symbol, spec, tile, calls.target, stored),
            [*projected, bias],
            (1, spec.queries, spec.heads * spec.value_dim),
        )


def _plan_attention(qkv: Layer, parts: Parts) -> _AttentionPlan | None:
    """The split says the channels of q, k and v in a head; all else follows and is checked."""
    sizes = _split_sizes(parts)
    if sizes is None or len(sizes) != 3 or sizes[0] != sizes[1]:
        return None
    key_dim, _, value_dim = sizes
    return _plan(parts, key_dim, value_dim, qkv)


def _plan_shrinking(kv: Layer, q: Layer, parts: Parts) -> _AttentionPlan | None:
    sizes = _split_sizes(parts)
    if sizes is None or len(sizes) != 2:
        return None
    sliced = parts["slice"]
    axes, begins, _, steps = (tuple(map(int, values)) for values in sliced.args[1:])
    side = isqrt(shape_of(parts["x"])[1])
    grid, rows = shape_of(sliced.args[0])[:3], shape_of(sliced)[:3]
    half = (side + 1) // 2
    if (axes, begins, steps) != ((1, 2), (0, 0), (2, 2)):
        return None
    if grid != (1, side, side) or rows != (1, half, half):
        return None
    return _plan(parts, *sizes, kv, q)


def _split_sizes(parts: Parts) -> tuple[int, ...] | None:
    """Extents of the parts along the last axis of (1, heads, tokens, channels)."""
    split = parts["split"]
    if int(split.attrs.axis) != 3:
        return None
    return tuple(int(field.shape[3]) for field in split.ty.fields)


def _plan(
    parts: Parts, key_dim: int, value_dim: int, layer: Layer, q_layer: Layer | None = None
) -> _AttentionPlan | None:
    """`layer`: of qkv, or of kv where `q_layer` makes the queries of a shrinking attention."""
    x, table = shape_of(parts["x"]), _table(parts)
    if not (is_float32(parts["x"]) and is_float32(parts["table"])):
        return None
    if len(x) != 3 or table.ndim != 3:
        return None
    heads, queries, keys = table.shape
    spec = AttentionSpec(
        heads=heads,
        key_dim=key_dim,
        value_dim=value_dim,
        query_side=isqrt(queries),
        key_side=isqrt(keys),
        stride=2 if q_layer else 1,
        fused_qkv=q_layer is None,
    )
    expected_side = -(-spec.key_side // spec.stride)
    head_columns = value_dim + key_dim * (2 if spec.fused_qkv else 1)
    projection = GemmSpec(
        rows=x[1],
        columns=heads * head_columns,
        depth=x[2],
        activation=Activation.NONE,
        residual=False,
        layout=Layout.PANELS,
    )
    fits = (
        x[:2] == (1, spec.key_side**2)
        and keys == spec.key_side**2
        and queries == expected_side**2
        and layer.weight_shape(parts) == (projection.depth, projection.columns)
    )
    if not fits or not is_supported(spec) or pack_bias(table, spec) is None:
        return None
    if is_int8(parts) and not (
        attention_int8.is_supported(spec) and rounds_as_kernel(parts, spec.keys)
    ):
        return None
    projections = (_Projection(layer, projection),)
    if q_layer is None:
        return _AttentionPlan(spec, projections)
    q_projection = replace(
        projection, rows=queries, columns=heads * key_dim, gather_side=spec.key_side
    )
    if q_layer.weight_shape(parts) != (q_projection.depth, q_projection.columns):
        return None
    return _AttentionPlan(spec, (_Projection(q_layer, q_projection), *projections))


def _table(parts: Parts) -> Float32:
    """Position biases (heads, queries, keys); a batch axis of 1 in front is dropped."""
    table = array_of(parts["table"])
    return table[0] if table.ndim == 4 and table.shape[0] == 1 else table
