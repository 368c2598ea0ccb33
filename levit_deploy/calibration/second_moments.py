"""Means of what a layer reads, and of the products of two of its inputs, over all tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from levit_deploy.network.network import Float64, Floats


@dataclass(frozen=True, eq=False)
class SecondMoments:
    """Of so many `tokens`; `sums`: (channels,), `products`: (channels, channels), summed."""

    tokens: int
    sums: Float64
    products: Float64

    @staticmethod
    def of(rows: Floats) -> SecondMoments:
        """Of tokens (n, channels)."""
        rows = rows.astype(np.float64)
        return SecondMoments(len(rows), rows.sum(axis=0), rows.T @ rows)

    def __add__(self, other: SecondMoments) -> SecondMoments:
        return SecondMoments(
            self.tokens + other.tokens, self.sums + other.sums, self.products + other.products
        )

    def scaled(self, factors: Float64) -> SecondMoments:
        """Those of the tensor times factors, (channels,)."""
        products = self.products * np.outer(factors, factors)
        return SecondMoments(self.tokens, self.sums * factors, products)

    def covariance(self) -> Float64:
        """(channels, channels): what is left where a bias makes up for the mean."""
        mean = self.sums / self.tokens
        covariance: Float64 = self.products / self.tokens - np.outer(mean, mean)
        return covariance
