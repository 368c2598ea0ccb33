"""Give every reader of a quantized tensor its own quantization, all of one form.

Before: q = quantize(x, s, z);  d = dequantize(q, s, z)
        matmul(d, w1);  matmul(d, w2)
After:  x1 = multiply(x, [ones]);  q1 = quantize(x1, s, z);  d1 = dequantize(q1, s, z)
        matmul(d1, w1);  and the same again for w2
A multiply by constants that is already there stays. The span of a quantization is that of the
matmul that reads it. Equal quantizations of one tensor become one
again when kernels are called.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax


def canonicalize_qdq(module: tvm.IRModule) -> tvm.IRModule:
    """A module that computes the same."""
    main = module["main"]
    values = relax.analysis.get_var2val(main)
    builder = relax.BlockBuilder()

    def definition(expr: relax.Expr, op: str) -> relax.Call | None:
        """The call of `op` that computes `expr`."""
        value = values.get(expr) if isinstance(expr, relax.Var) else None
        if isinstance(value, relax.Call) and getattr(value.op, "name", "") == op:
            return value
        return None

    def own_quantization(value: relax.Expr) -> relax.Expr:
        if not isinstance(value, relax.Call) or not isinstance(value.op, tvm.ir.Op):
            return value
        if value.op.name != "relax.matmul":
            return value
        dequantize = definition(value.args[0], "relax.dequantize")
        if dequantize is None:
            return value
        quantize = definition(dequantize.args[0], "relax.quantize")
        if quantize is None:
            return value
        multiply = definition(quantize.args[0], "relax.multiply")
        if multiply is not None and isinstance(multiply.args[1], tvm.ir.GenericConst):
            x, factors = multiply.args
        else:
            x = quantize.args[0]
            factors = relax.const(np.ones(int(x.ty.shape[-1]), np.float32))
        scaled = builder.emit(relax.op.multiply(x, factors))
        own = relax.Call(quantize.op, [scaled, *quantize.args[1:]], quantize.attrs, span=value.span)
        q = builder.emit(own)
        x = relax.Call(dequantize.op, [q, *dequantize.args[1:]], dequantize.attrs)
        return relax.Call(value.op, [builder.emit(x), value.args[1]], value.attrs, span=value.span)

    with builder.function("main", main.params):
        with builder.dataflow():
            for block in main.body.blocks:
                for binding in block.bindings:
                    value = own_quantization(binding.value)
                    builder.emit_normalized(relax.VarBinding(binding.var, builder.normalize(value)))
        builder.emit_func_output(main.body.body)
    return relax.transform.DeadCodeElimination()(builder.get())
