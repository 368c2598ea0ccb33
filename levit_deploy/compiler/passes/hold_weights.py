"""Keep quantized weights as they are while everything else that is constant is folded.

Before: main(image):            lv = dequantize([w int8], [scale], [zero])
Held:   main(image, weight_0):  lv = dequantize(weight_0, [scale], [zero])
After:  main(image):            lv = dequantize([w int8], [scale], [zero])
"""

from __future__ import annotations

from collections.abc import Callable

import tvm
from tvm import relax


def hold_weights(
    module: tvm.IRModule, fold: Callable[[tvm.IRModule], tvm.IRModule]
) -> tvm.IRModule:
    """`fold` applied to the module while its quantized weights are parameters of `main`."""
    main = module["main"]
    held = {
        binding.var: relax.Var(f"weight_{binding.var.name}", binding.value.args[0].ty)
        for block in main.body.blocks
        for binding in block.bindings
        if _dequantizes_weights(binding.value)
    }
    if not held:
        return fold(module)
    weights: dict[str, tvm.runtime.Tensor] = {}
    builder = relax.BlockBuilder()
    with builder.function("main", [*main.params, *held.values()]):
        with builder.dataflow():
            for block in main.body.blocks:
                for binding in block.bindings:
                    value = binding.value
                    if binding.var in held:
                        parameter = held[binding.var]
                        weights[parameter.name] = value.args[0].value
                        value = relax.Call(value.op, [parameter, *value.args[1:]], value.attrs)
                    builder.emit_normalized(relax.VarBinding(binding.var, builder.normalize(value)))
        builder.emit_func_output(main.body.body)
    folded = fold(builder.get())
    return relax.transform.BindParams("main", weights)(folded)


def _dequantizes_weights(value: relax.Expr) -> bool:
    return (
        isinstance(value, relax.Call)
        and getattr(value.op, "name", "") == "relax.dequantize"
        and isinstance(value.args[0], tvm.ir.GenericConst)
        and str(value.args[0].ty.dtype) in ("int8", "int16")
    )
