import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from levit_deploy.compiler.pipeline import compile_model
from levit_deploy.compiler.program import Entry, Program, Space
from levit_deploy.errors import DeployError
from levit_deploy.export.exported import INPUT_NAME, OUTPUT_NAME
from levit_deploy.targets.table import get_target
from tests.compiler.graphs import exported, gelu_mlp, stride_one_conv

TARGETS = ["x86-64-v3", "x86-64-v4", "arm64", "armv7"]


@pytest.fixture(scope="module")
def program() -> Program:
    return compile_model(stride_one_conv(), get_target("x86-64-v3"), name="net")


def test_the_same_model_gives_the_same_bytes(program: Program, tmp_path: Path) -> None:
    """Also from another process, with another hash seed."""
    source = (
        "import pickle, sys; from pathlib import Path\n"
        "from tests.compiler.graphs import stride_one_conv\n"
        "from levit_deploy.compiler.pipeline import compile_model\n"
        "from levit_deploy.targets.table import get_target\n"
        "target = get_target('x86-64-v3')\n"
        "program = compile_model(stride_one_conv(), target, name='net')\n"
        "Path(sys.argv[1]).write_bytes(pickle.dumps(program))\n"
    )
    file = tmp_path / "program"
    subprocess.run(
        [sys.executable, "-c", source, str(file)],
        check=True,
        cwd=Path(__file__).parents[2],
        env={"PYTHONHASHSEED": "12345", "PATH": "/usr/bin:/bin"},
    )
    assert pickle.loads(file.read_bytes()) == program


@pytest.mark.parametrize("target_name", TARGETS)
def test_objects_need_nothing_but_the_c_library(target_name: str, tmp_path: Path) -> None:
    program = compile_model(stride_one_conv(), get_target(target_name), name="net")
    path = tmp_path / "kernels.o"
    path.write_bytes(program.kernels_object)
    symbols = subprocess.run(
        ["llvm-nm", str(path)], check=True, capture_output=True, text=True
    ).stdout
    assert "TVM" not in symbols
    undefined = {line.split()[-1] for line in symbols.splitlines() if " U " in line}
    assert undefined <= {"memcpy", "memset", "memmove"}
    defined = {line.split()[-1] for line in symbols.splitlines() if " T " in line}
    assert defined == {call.symbol for call in program.calls}
    assert all(symbol.startswith("net_") for symbol in defined)


def test_large_locals_are_scratch(program: Program) -> None:
    """The convolution's padded input: 3 x 26 x 26 floats."""
    scratch = [call for call in program.calls if any(a.space is Space.SCRATCH for a in call.args)]
    assert {call.kind for call in scratch} == {"fallback"}
    assert program.scratch_bytes >= 3 * 26 * 26 * 4


def test_the_self_test_image_is_not_overwritten_before_it_is_read(program: Program) -> None:
    """Nothing that runs up to the normalisation touches the bytes of the 8-bit image."""
    begin = program.selftest_image_offset
    end = begin + 3 * program.image_size**2
    assert end <= program.arena_bytes
    rgb8 = [call for call in program.calls if call.entry is not Entry.FLOAT]
    readers = [call for call in rgb8 if any(a.space is Space.IMAGE for a in call.args)]
    assert readers == rgb8[:1]
    normalised = readers[0].args[1]
    assert normalised.space is Space.ARENA
    floats = range(normalised.offset_bytes, normalised.offset_bytes + 4 * 3 * program.image_size**2)
    assert floats.stop <= begin or floats.start >= end


def test_each_phase_is_dumped_as_text(tmp_path: Path) -> None:
    seen: list[str] = []
    folder = tmp_path / "new" / "dump"
    compile_model(gelu_mlp(), get_target("x86-64-v3"), dump_ir=folder, on_phase=seen.append)
    files = sorted(path.name for path in folder.iterdir())
    assert files == [
        f"{number:02}_{phase}.txt" for number, phase in enumerate(seen, 1) if phase != "emit_object"
    ]
    assert "R.erf" in (folder / files[0]).read_text()
    assert "foreign_normalize(image[0], arena[" in "".join(p.read_text() for p in folder.iterdir())


def test_a_dump_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DeployError, match="cannot write"):
        compile_model(gelu_mlp(), get_target("x86-64-v3"), dump_ir=tmp_path / "file" / "dump")


def test_a_program_is_loadable_without_tvm(program: Program, tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(pickle.dumps(program))
    source = (
        "import pickle, sys\n"
        "assert pickle.load(open(sys.argv[1], 'rb')).name == 'net'\n"
        "assert 'tvm' not in sys.modules and 'torch' not in sys.modules\n"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", source, str(tmp_path / "program")], check=True, cwd=root)


def test_an_operator_that_cannot_be_imported_is_named() -> None:
    nodes = [
        helper.make_node("Flatten", [INPUT_NAME], ["x"]),
        helper.make_node("Bernoulli", ["x"], [OUTPUT_NAME]),
    ]
    with pytest.raises(DeployError, match="`Bernoulli`"):
        compile_model(exported(nodes, {}, size=4, classes=48), get_target("x86-64-v3"))


def test_a_shape_that_depends_on_data_is_refused() -> None:
    nodes = [
        helper.make_node("Flatten", [INPUT_NAME], ["x"]),
        helper.make_node("Unique", ["x"], ["u"]),
        helper.make_node("Slice", ["u", "zero", "four"], ["s"]),
        helper.make_node("Reshape", ["s", "shape"], [OUTPUT_NAME]),
    ]
    weights = {"zero": np.array([0]), "four": np.array([4]), "shape": np.array([1, 4])}
    with pytest.raises(DeployError, match="at run time"):
        compile_model(exported(nodes, weights, size=4, classes=4), get_target("x86-64-v3"))


def test_an_output_that_is_not_computed_is_refused() -> None:
    nodes = [helper.make_node("Identity", ["constant"], [OUTPUT_NAME])]
    model = exported(nodes, {"constant": np.ones((1, 5), np.float32)}, size=4, classes=5)
    with pytest.raises(DeployError, match="not the result of a computation"):
        compile_model(model, get_target("x86-64-v3"))
