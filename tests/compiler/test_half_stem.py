"""Which convolutions of a network in 16-bit floats are multiplied as such."""

from __future__ import annotations

import pytest

from levit_deploy.compiler.kernels.conv.spec import ConvSpec, Destination, Source
from levit_deploy.compiler.tuning.specs import distinct_specs
from levit_deploy.export.export_model import with_half
from levit_deploy.half_format import HalfFormat
from levit_deploy.targets.table import get_target
from tests.compiler.levit import exported_tiny


@pytest.mark.parametrize(
    ("target", "format", "source", "destination"),
    [
        ("arm64-dotprod", HalfFormat.FP16, Source.PADDED_FP16, Destination.PADDED_FP16),
        ("arm64-dotprod", HalfFormat.BF16, Source.PADDED, Destination.PADDED),
        ("arm64", HalfFormat.FP16, Source.PADDED, Destination.PADDED),
        ("x86-64-v3", HalfFormat.FP16, Source.PADDED, Destination.PADDED),
        ("x86-64-v4-bf16", HalfFormat.FP16, Source.PADDED, Destination.PADDED),
        ("x86-64-v4-bf16", HalfFormat.BF16, Source.PADDED_BF16, Destination.PADDED_BF16),
    ],
)
def test_where_the_cpu_multiplies_them(
    target: str, format: HalfFormat, source: Source, destination: Destination
) -> None:
    model = with_half(exported_tiny(), format)
    convs = [s for s in distinct_specs(model, get_target(target)) if isinstance(s, ConvSpec)]
    assert [c.source for c in convs] == [Source.IMAGE_F32, source, source, source]
    assert [c.destination for c in convs] == [*[destination] * 3, Destination.TOKENS]
