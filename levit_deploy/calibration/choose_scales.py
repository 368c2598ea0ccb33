"""Statistics, Recipe -> CalibrationTable: decides everything, changes nothing."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import numpy as np

from levit_deploy.calibration.byte_weights import byte_weights
from levit_deploy.calibration.compensation import linear_steps
from levit_deploy.calibration.factors import (
    BYTE_BALANCE,
    Reading,
    channel_factors,
    equalize_streams,
    scale_statistics,
    scale_streams,
)
from levit_deploy.calibration.image_set import ImageSet
from levit_deploy.calibration.keep_float import kept_float
from levit_deploy.calibration.observers import extrapolated_range, observe, seen_range
from levit_deploy.calibration.packed_steps import pack_steps
from levit_deploy.calibration.recipe import Recipe
from levit_deploy.calibration.rounding import (
    LARGEST_STEP,
    activation_scale,
    activation_scale_int16,
    activation_steps,
    shortest,
    weight_scales,
    weight_scales_int16,
    weight_scales_of_bytes,
    weight_steps,
)
from levit_deploy.calibration.second_moments import SecondMoments
from levit_deploy.calibration.statistics import TensorStatistics
from levit_deploy.calibration.table import (
    CalibrationImages,
    CalibrationTable,
    ConvScale,
    LayerScale,
    TensorScale,
)
from levit_deploy.errors import DeployError
from levit_deploy.export.exported import ExportedModel
from levit_deploy.network.network import IMAGE, Conv, Float64, Linear


def choose_scales(
    exported: ExportedModel,
    statistics: Mapping[str, TensorStatistics],
    images: ImageSet | None,
    recipe: Recipe,
) -> CalibrationTable:
    """Decide how the linear layers' inputs and weights become 8 bits, those of the stem's
    convolutions 16 bits, and what stays float.

    `statistics`: of the float32 model on `images`, or those expected if None. Raises DeployError if
    the recipe names a layer that the model does not have.
    """
    network = exported.network
    _check_names([layer.name for layer, tensor in network.reading() if tensor != IMAGE], recipe)
    linears = [r for r in network.reading() if isinstance(r[0], Linear) and _quantizes(recipe, r)]
    streams = equalize_streams(network, statistics, linears) if recipe.equalize_streams else ()
    statistics = scale_statistics(network, statistics, streams, linears)
    readings = [r for r in scale_streams(network, streams).reading() if _quantizes(recipe, r)]

    tensors: list[TensorScale] = []
    layers: dict[str, LayerScale] = {}
    for name in dict.fromkeys(tensor for _, tensor in linears):
        readers = [r for r, tensor in readings if tensor == name and isinstance(r, Linear)]
        tensor = _tensor_scale(name, statistics[name], readers, recipe)
        tensors.append(tensor)
        for layer in readers:
            layers[layer.name] = _layer_scale(layer, tensor, statistics[name], recipe)
    return CalibrationTable(
        model=exported.name,
        weights_digest=exported.weights_digest,
        recipe=recipe,
        images=_described(images) if images else None,
        streams=streams,
        stem=tuple(
            _conv_scale(layer, tensor, statistics[tensor])
            for layer, tensor in readings
            if isinstance(layer, Conv)
        ),
        tensors=tuple(tensors),
        layers=tuple(layers[linear.name] for linear, _ in linears),
        kept_float=tuple(kept_float(network, recipe)),
    )


def _described(images: ImageSet) -> CalibrationImages:
    return CalibrationImages(
        images.source, len(images), images.skipped, images.preprocessing, images.digest
    )


def _check_names(names: Sequence[str], recipe: Recipe) -> None:
    for layer in recipe.float_layers:
        if layer not in names:
            near = difflib.get_close_matches(layer, names, n=1, cutoff=0.0)
            raise DeployError(
                f"no layer `{layer}` to quantize, which the recipe `{recipe.name}` keeps float",
                hint=f"did you mean `{near[0]}`?",
            )


def _quantizes(recipe: Recipe, reading: Reading) -> bool:
    layer, tensor = reading
    return tensor != IMAGE and layer.name not in recipe.float_layers


def _tensor_scale(
    name: str, seen: TensorStatistics, readers: Sequence[Linear], recipe: Recipe
) -> TensorScale:
    factors: tuple[float, ...] = ()
    if recipe.channel_factors:
        weights = [layer.weight.astype(np.float64) for layer in readers]
        factors = tuple(map(shortest, channel_factors(seen, weights)))
        seen = seen.scaled(np.array(factors))
    low, high = observe(recipe.observer, seen)
    scale, zero_point = activation_scale(low, high)
    seen_low, seen_high = seen_range(seen)
    return TensorScale(
        tensor=name,
        readers=tuple(layer.name for layer in readers),
        scale=scale,
        zero_point=zero_point,
        low=shortest(low),
        high=shortest(high),
        seen_low=shortest(seen_low),
        seen_high=shortest(seen_high),
        factors=factors,
    )


def _layer_scale(
    layer: Linear, tensor: TensorScale, seen: TensorStatistics, recipe: Recipe
) -> LayerScale:
    """`seen`: of the tensor before its factors."""
    weight = layer.weight.T.astype(np.float64)
    factors = np.array(tensor.factors or np.ones(len(weight)))
    factored = weight / factors[:, None]
    scales = weight_scales(factored)
    steps = nearest = weight_steps(factored, scales)
    if recipe.compensate_rounding and seen.moments is not None:
        even, odd = (_squares(m.scaled(factors), tensor, recipe) for m in seen.moments)
        steps = linear_steps(factored / scales.astype(np.float64), nearest, even, odd)
    correction: tuple[float, ...] = ()
    if recipe.bias_correction:
        x = activation_steps(seen.sample * factors, tensor.scale, tensor.zero_point)
        got = (x.mean(axis=0) * tensor.scale) @ steps
        wanted = seen.sample.mean(axis=0, dtype=np.float64) @ weight
        correction = tuple(map(shortest, wanted - got * scales))
    return LayerScale(
        layer=layer.name,
        scales=tuple(map(shortest, scales)),
        roundings=b"" if steps is nearest else pack_steps((steps - nearest).T),
        bias_correction=correction,
    )


def _squares(moments: SecondMoments, tensor: TensorScale, recipe: Recipe) -> Float64:
    """Means of products of two inputs, of which one is what rounding them adds, (in, in)."""
    noise = tensor.scale**2 / 12 * np.eye(len(moments.sums))
    if recipe.bias_correction:
        return moments.covariance() + noise
    return moments.products / moments.tokens + noise


def _conv_scale(layer: Conv, tensor: str, seen: TensorStatistics) -> ConvScale:
    """The same in every recipe. All but the first convolution, which reads the image, get one."""
    factors, weight = _factored(layer, seen, BYTE_BALANCE)
    scales = weight_scales_of_bytes(weight)
    steps = byte_weights(weight, scales, seen.scaled(factors).windows)
    if steps is None:
        factors, weight = _factored(layer, seen)
        scales = weight_scales_int16(weight)
    seen = seen.scaled(factors)
    seen_low, seen_high = seen_range(seen)
    return ConvScale(
        layer=layer.name,
        tensor=tensor,
        scale=activation_scale_int16(*extrapolated_range(seen)),
        largest_step=LARGEST_STEP,
        seen_low=shortest(seen_low),
        seen_high=shortest(seen_high),
        factors=tuple(factors.tolist()),
        scales=tuple(map(shortest, scales)),
        byte_weights=b"" if steps is None else pack_steps(steps),
    )


def _factored(
    layer: Conv, seen: TensorStatistics, balance: float | None = None
) -> tuple[Float64, Float64]:
    """Factors of its inputs, and the weights for inputs that are multiplied by them."""
    weight = layer.weight.astype(np.float64)
    by_input = weight.transpose(0, 2, 3, 1).reshape(-1, weight.shape[1])
    factors = np.array([shortest(f) for f in channel_factors(seen, [by_input], balance)])
    return factors, weight / factors.reshape(1, -1, 1, 1)
