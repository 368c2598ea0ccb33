"""ExportedModel to a file and back, and files that are none."""

import numpy as np
import onnx
import pytest

from levit_deploy.errors import DeployError
from levit_deploy.export.export_model import export_model
from levit_deploy.export.exported import ExportedModel


@pytest.fixture
def exported(random_tiny):
    return export_model(random_tiny, name="my_levit", weights_digest="ab" * 32)


@pytest.fixture
def saved(exported, tmp_path):
    path = tmp_path / "my_levit.onnx"
    exported.save(path)
    return path


def test_round_trip(exported, saved):
    assert ExportedModel.load(saved) == exported
    assert list(saved.parent.iterdir()) == [saved]


def test_the_file_is_plain_onnx(exported, saved):
    onnx.checker.check_model(saved, full_check=True)
    model = onnx.load(saved)
    assert model.opset_import[0].version == 17
    text = onnx.printer.to_text(model.graph)
    assert text.startswith("levit (float[1,3,64,64] image) => (float[1,10] logits)")


def test_saving_twice_gives_the_same_bytes(exported, saved):
    first = saved.read_bytes()
    ExportedModel.load(saved).save(saved)
    assert saved.read_bytes() == first


def test_another_schema_version(saved):
    model = onnx.load(saved)
    for prop in model.metadata_props:
        if prop.key == "levit_deploy.schema_version":
            prop.value = "99"
    onnx.save(model, saved)
    with pytest.raises(DeployError, match="schema version `99`, expected `3`"):
        ExportedModel.load(saved)


def test_onnx_of_another_tool(exported, tmp_path):
    onnx.save(exported.graph, tmp_path / "foreign.onnx")
    with pytest.raises(DeployError, match="was not exported by levit-deploy"):
        ExportedModel.load(tmp_path / "foreign.onnx")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated(saved, share):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DeployError, match=r"not an ONNX model|not exported by"):
        ExportedModel.load(saved)


@pytest.mark.parametrize("lost", range(4))
def test_incomplete_description(saved, lost):
    model = onnx.load(saved)
    del model.metadata_props[lost]
    onnx.save(model, saved)
    with pytest.raises(DeployError, match=r"description in .* is damaged|not exported by"):
        ExportedModel.load(saved)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "no name"),
        ("card", "{"),
        ("card", "[]"),
        ("card", '{"mean": [0.5, 0.5, 0.5]}'),
    ],
)
def test_unreadable_description(saved, key, value):
    model = onnx.load(saved)
    for prop in model.metadata_props:
        if prop.key == f"levit_deploy.{key}":
            prop.value = value
    onnx.save(model, saved)
    with pytest.raises(DeployError, match=r"my_levit\.onnx`") as error:
        ExportedModel.load(saved)
    assert error.value.hint


@pytest.mark.parametrize("content", [b"PK\x03\x04" + bytes(100), b"not a model", b"\x80\x04\x95"])
def test_not_onnx(tmp_path, content):
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(DeployError, match="not an ONNX model"):
        ExportedModel.load(tmp_path / "x.onnx")


def test_missing_file(tmp_path):
    with pytest.raises(DeployError, match="No such file"):
        ExportedModel.load(tmp_path / "absent.onnx")


def test_folder_that_does_not_exist(exported, tmp_path):
    with pytest.raises(DeployError, match="cannot write"):
        exported.save(tmp_path / "absent" / "x.onnx")


def test_what_could_not_be_written_leaves_nothing(exported, tmp_path):
    (tmp_path / "x.onnx").mkdir()
    with pytest.raises(DeployError, match="cannot write"):
        exported.save(tmp_path / "x.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["x.onnx"]


def test_the_card_survives_to_the_bit(exported, saved):
    loaded = ExportedModel.load(saved)
    np.testing.assert_array_equal(loaded.normalization.mean, exported.normalization.mean)
    np.testing.assert_array_equal(loaded.normalization.std, exported.normalization.std)
    assert loaded.card == exported.card
