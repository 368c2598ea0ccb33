"""Factors that make a tensor's channels alike before they share one scale.

    x -> W      =>      x * f -> W / f          f: one positive factor a channel

Nothing changes in real numbers, but every channel gets its share of the 256 levels. The larger f,
the finer the channel's activations and the coarser its weights; ranges decide between the two:

    f = largest |W| ** (1 - balance) / largest |x| ** balance

(Xiao et al., "SmoothQuant", ICML 2023, section 4.) Multiplying x by anything divides f by it: a
network and its rescaled copy get the same 8-bit weights.

Factors between q and k have nothing to give: an attention in 8 bits has a step for each channel of
its keys anyway, and each output channel of a layer has a weight scale of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from levit_deploy.calibration.statistics import TensorStatistics
from levit_deploy.calibration.table import StreamFactors
from levit_deploy.network.network import Float64, Layer, Network
from levit_deploy.network.streams import residual_streams, scale_stream

Reading = tuple[Layer, str]  # a layer and the tensor that it reads

# Logit SQNR of the demonstration net's library on 2,000 images, rounding compensated: 0.6 44.0,
# 0.8 44.6 dB; without pictures 41.2 and 42.0 dB. Of a net that the choice was not made on,
# tests/data/levit_tiny, rounded to nearest: 0.35 35.5, 0.5 36.0, 0.65 36.6, 0.8 36.8 dB.
BALANCE = 0.8
# Of few pictures chance decides what each channel's range is; what others exceed it by is clipped.
# levit_tiny, calibrated on 16: 0.6 34.1, 0.8 30.1 dB; on 32: 34.7, 35.5; on 512: 36.9, 37.0 dB.
FEW_IMAGES, BALANCE_OF_FEW = 32, 0.6
# Where 16-bit activations meet 8-bit weights, which get more than their share. SQNR of the
# demonstration net's logits, all but the stem in float32: 0 52.4, 0.3 53.2, 0.5 53.0 dB.
BYTE_BALANCE = 0.3


def channel_factors(
    seen: TensorStatistics, weights: Sequence[Float64], balance: float | None = None
) -> Float64:
    """Factors of a tensor that layers read, (channels,), their geometric mean being 1.

    `weights`: those of the layers, (.., channels). `balance`: None for that of 8-bit layers.

    A channel that was always zero gets the factor that makes its weights as large as those of the
    other channels (median), one that no layer reads the factor that does so for its activations.
    """
    if balance is None:
        balance = BALANCE if seen.images > FEW_IMAGES else BALANCE_OF_FEW
    x = seen.largest
    weight = np.max([np.abs(weight).max(axis=0) for weight in weights], axis=0)
    factors = np.ones_like(x)
    live = (x > 0) & (weight > 0)
    if live.any():
        wanted = weight[live] ** (1 - balance) / x[live] ** balance
        factors[live] = wanted / np.exp(np.log(wanted).mean())
        unseen, unread = (x == 0) & (weight > 0), (x > 0) & (weight == 0)
        factors[unseen] = weight[unseen] / np.median(weight[live] / factors[live])
        factors[unread] = np.median(x[live] * factors[live]) / x[unread]
    return factors


def equalize_streams(
    network: Network, statistics: Mapping[str, TensorStatistics], linears: Sequence[Reading]
) -> tuple[StreamFactors, ...]:
    """For each residual stream the geometric mean of the factors that its readers want.

    Rounded to powers of two, so that what stays float32 stays so to the bit. `linears`: the layers
    that will be in 8 bits.
    """
    chosen = []
    for stream in residual_streams(network):
        wanted = [
            channel_factors(statistics[tensor], [linear.weight.astype(np.float64)])
            for linear, tensor in linears
            if linear.name in stream.readers
        ]
        if wanted:
            factors = np.exp2(np.rint(np.mean(np.log2(wanted), axis=0)))
            chosen.append(StreamFactors(stream.tensors[0], tuple(factors.tolist())))
    return tuple(chosen)


def scale_streams(network: Network, chosen: Sequence[StreamFactors]) -> Network:
    """The network with its streams multiplied; its logits stay what they are."""
    streams = {stream.tensors[0]: stream for stream in residual_streams(network)}
    for entry in chosen:
        network = scale_stream(network, streams[entry.tensor], np.array(entry.factors))
    return network


def scale_statistics(
    network: Network,
    statistics: Mapping[str, TensorStatistics],
    chosen: Sequence[StreamFactors],
    linears: Sequence[Reading],
) -> Mapping[str, TensorStatistics]:
    """The statistics of the network whose streams are multiplied."""
    factors = {entry.tensor: np.array(entry.factors) for entry in chosen}
    scaled = dict(statistics)
    for stream in residual_streams(network):
        if stream.tensors[0] in factors:
            for name in {tensor for linear, tensor in linears if linear.name in stream.readers}:
                scaled[name] = statistics[name].scaled(factors[stream.tensors[0]])
    return scaled
