"""The classifier: mean over the tokens, then one linear layer (both heads merged)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HeadSpec:
    """logits[classes] = mean over tokens of a[tokens, channels] @ w[channels, classes] + bias."""

    tokens: int
    channels: int
    classes: int
