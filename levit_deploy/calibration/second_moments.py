"""Means of what a layer reads, and of the products of two of its inputs, over all tokens.

Tokens wait until they are `_TOGETHER`: the fewer there are, the more of the time goes to memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from levit_deploy.network.network import Float64, Floats

_TOGETHER = 512


@dataclass(frozen=True, eq=False)
class SecondMoments:
    """Of so many `tokens`; `sums`: (channels,), `products`: (channels, channels), summed."""

    tokens: int
    sums: Float64
    products: Float64

    def scaled(self, factors: Float64) -> SecondMoments:
        """Those of the tensor times factors, (channels,)."""
        products = self.products * np.outer(factors, factors)
        return SecondMoments(self.tokens, self.sums * factors, products)

    def covariance(self) -> Float64:
        """(channels, channels): what is left where a bias makes up for the mean."""
        mean = self.sums / self.tokens
        covariance: Float64 = self.products / self.tokens - np.outer(mean, mean)
        return covariance


class MomentsSum:
    """`SecondMoments` of tokens that come by and by."""

    def __init__(self, channels: int) -> None:
        self._tokens = 0
        self._sums, self._products = np.zeros(channels), np.zeros((channels, channels))
        self._waiting: list[Floats] = []

    def add(self, rows: Floats) -> None:
        """Tokens (n, channels)."""
        self._waiting.append(rows)
        if sum(map(len, self._waiting)) >= _TOGETHER:
            self._collect()

    def total(self) -> SecondMoments:
        if self._waiting:
            self._collect()
        return SecondMoments(self._tokens, self._sums, self._products)

    def _collect(self) -> None:
        rows = np.concatenate(self._waiting, dtype=np.float64)
        self._tokens += len(rows)
        self._sums += rows.sum(axis=0)
        self._products += rows.T @ rows
        self._waiting = []
