"""CalibrationTable to JSON and back, and files that are none."""

import json

import numpy as np
import pytest

from levit_deploy.calibration.choose_scales import choose_scales
from levit_deploy.calibration.quantize import quantize
from levit_deploy.calibration.recipe import DEFAULT_RECIPE
from levit_deploy.calibration.table import CalibrationTable
from levit_deploy.errors import DeployError


@pytest.fixture(scope="module")
def table(exported, statistics, pictures):
    return choose_scales(exported, statistics, pictures, DEFAULT_RECIPE)


@pytest.fixture
def saved(table, tmp_path):
    table.save(tmp_path / "table.json")
    return tmp_path / "table.json"


def test_round_trip_to_the_bit(exported, table, saved):
    loaded = CalibrationTable.load(saved)
    assert loaded == table
    assert quantize(exported, loaded) == quantize(exported, table)


def test_numbers_are_written_once_a_line_and_short(saved, table):
    lines = saved.read_text().splitlines()
    scale = table.tensors[0].scale
    assert f'   "scale": {scale},' in lines
    assert len(repr(scale)) <= 13  # nine digits tell any two float32 apart
    assert sum(line.lstrip().startswith('"factors": [') for line in lines) == len(
        table.tensors + table.streams + table.stem
    )


def test_every_tensor_of_the_network_is_accounted_for(exported, table):
    """8 bits, 16 bits, or float32 for a reason; nothing twice."""
    named = [layer.layer for layer in (*table.stem, *table.layers)]
    named += [t.tensor for t in table.kept_float]
    assert len(named) == len(set(named))
    moved = {"Reshape", "Transpose", "Split", "Slice"}
    computed = [node for node in exported.graph.graph.node if node.op_type not in moved]
    biases = sum(node.input[-1].endswith(".bias") and node.op_type == "Add" for node in computed)
    assert len(named) == len(computed) - biases
    assert {t.reason.split(":")[0] for t in table.kept_float} == {
        "first convolution",
        "attention",
        "residual stream",
        "activation",
        "mean over tokens",
    }


def test_the_table_says_what_it_was_made_of(table, pictures):
    assert table.model == "levit_tiny"
    assert table.weights_digest == "ab" * 32
    assert table.images.digest == pictures.digest
    assert (table.images.images, table.images.skipped) == (32, 0)
    assert "bilinear to 64" in table.images.preprocessing


def test_scales_span_the_range(table):
    for tensor in table.tensors:
        assert tensor.low <= tensor.seen_low <= 0 <= tensor.seen_high <= tensor.high
        assert tensor.scale * 255 == pytest.approx(tensor.high - tensor.low, rel=1e-5)
        assert -tensor.zero_point * tensor.scale == pytest.approx(tensor.low, abs=tensor.scale)
        assert np.float32(tensor.scale) > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 99}, "schema version `99`"),
        ({"tensors": [{"tensor": "x"}]}, r"missing field `tensors\[0\].factors`"),
        ({"layers": 3}, "`layers` is `3`, not a list"),
        ({"recipe": {"schema_version": 2}}, "missing field"),
    ],
)
def test_a_damaged_table_is_refused(saved, change, message):
    saved.write_text(json.dumps({**json.loads(saved.read_text()), **change}))
    with pytest.raises(DeployError, match=message):
        CalibrationTable.load(saved)


def test_a_file_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "table.json").write_text("no")
    with pytest.raises(DeployError, match="is not JSON"):
        CalibrationTable.load(tmp_path / "table.json")
    with pytest.raises(DeployError, match="cannot read"):
        CalibrationTable.load(tmp_path / "missing.json")
