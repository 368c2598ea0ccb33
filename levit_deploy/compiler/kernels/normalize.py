"""8-bit RGB image -> normalised float image, for programs whose first kernel reads only floats."""

from __future__ import annotations

from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.kernel import Kernel, kernel_function, parameter, task_range
from levit_deploy.export.exported import Normalization
from levit_deploy.targets.target import Target

CHANNELS = 3


def normalize_kernel(
    symbol: str, size: int, normalization: Normalization, target: Target
) -> Kernel:
    """out[c, y, x] = image[y, x, c] * (1 / (255 std[c])) - mean[c] / std[c].

    Parameters: image (size * size * 3) uint8 HWC, out (3 * size * size) float32 CHW. Both factors
    are float32, rounded once from float64. A task is one row of the image.
    """
    scales = [1 / (255 * std) for std in normalization.std]
    shifts = [-m / s for m, s in zip(normalization.mean, normalization.std, strict=True)]
    pixels = size * size
    with kernel_function(symbol) as builder:
        image = parameter("image", pixels * CHANNELS, "uint8")
        out = parameter("out", CHANNELS * pixels)
        with T.serial(*task_range()) as y, T.serial(size) as x:
            pixel = y * size + x
            for c in range(CHANNELS):
                value = T.cast(image[pixel * CHANNELS + c], "float32")
                scale, shift = T.float32(scales[c]), T.float32(shifts[c])
                if target.fma:
                    value = T.call_llvm_pure_intrin("float32", "llvm.fma", value, scale, shift)
                else:
                    value = value * scale + shift
                T.buffer_store(out, value, [c * pixels + pixel])
    return Kernel(
        symbol=symbol,
        func=builder.get(),
        tasks=size,
        unaligned=(0,),
        kind="normalize",
        shape=f"{size}x{size}",
        tile="row",
        multiply_adds=CHANNELS * pixels,
        bytes_moved=CHANNELS * pixels * 5,
    )
