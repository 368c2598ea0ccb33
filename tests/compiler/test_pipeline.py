import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from levit_deploy.compiler.pipeline import compile_model
from levit_deploy.compiler.program import Entry, Program, Space
from levit_deploy.errors import DeployError
from levit_deploy.runtime.elf import Elf
from levit_deploy.targets.table import get_target
from tests.compiler.levit import exported_tiny

TARGETS = ["x86-64-v3", "x86-64-v4", "arm64", "armv7"]


@pytest.fixture(scope="module")
def program() -> Program:
    return compile_model(exported_tiny(), get_target("x86-64-v3"), name="net")


def test_the_same_model_gives_the_same_bytes(program: Program, tmp_path: Path) -> None:
    """Also from another process, with another hash seed."""
    source = (
        "import pickle, sys; from pathlib import Path\n"
        "from tests.compiler.levit import exported_tiny\n"
        "from levit_deploy.compiler.pipeline import compile_model\n"
        "from levit_deploy.targets.table import get_target\n"
        "target = get_target('x86-64-v3')\n"
        "program = compile_model(exported_tiny(), target, name='net')\n"
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
def test_objects_need_nothing_but_the_c_library(target_name: str) -> None:
    program = compile_model(exported_tiny(), get_target(target_name), name="net")
    symbols = [s for s in Elf.parse(program.kernels_object).symbols if not s.local]
    undefined = {symbol.name for symbol in symbols if not symbol.defined}
    assert undefined <= {"memcpy", "memset", "memmove"}
    defined = {symbol.name for symbol in symbols if symbol.defined}
    assert defined == {call.symbol for call in program.calls}
    assert all(symbol.startswith("net_") for symbol in defined)


def test_the_self_test_image_is_not_overwritten_before_it_is_read(program: Program) -> None:
    """The first convolution, which alone reads it, writes elsewhere."""
    begin = program.selftest_image_offset
    end = begin + 3 * program.image_size**2
    assert end <= program.arena_bytes
    rgb8 = [call for call in program.calls if call.entry is not Entry.FLOAT]
    readers = [call for call in rgb8 if any(a.space is Space.IMAGE for a in call.args)]
    assert readers == rgb8[:1]
    written = readers[0].args[2]
    assert written.space is Space.ARENA
    padded = 32 + 1  # pixels of a side, with the border that the next convolution reads
    floats = range(written.offset_bytes, written.offset_bytes + 4 * padded**2 * 4)
    assert floats.stop <= begin or floats.start >= end


def test_each_phase_is_dumped_as_text(tmp_path: Path) -> None:
    seen: list[str] = []
    folder = tmp_path / "new" / "dump"
    compile_model(exported_tiny(), get_target("x86-64-v3"), dump_ir=folder, on_phase=seen.append)
    files = sorted(path.name for path in folder.iterdir())
    assert files == [
        f"{number:02}_{phase}.txt" for number, phase in enumerate(seen, 1) if phase != "emit_object"
    ]
    assert "blocks.0.m.qkv" in (folder / files[0]).read_text()
    assert "_rgb8_" in (folder / files[1]).read_text()


def test_a_dump_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DeployError, match="cannot write"):
        compile_model(exported_tiny(), get_target("x86-64-v3"), dump_ir=tmp_path / "file" / "dump")


def test_a_program_is_loadable_without_tvm(program: Program, tmp_path: Path) -> None:
    file = tmp_path / "program"
    file.write_bytes(pickle.dumps(program))
    source = (
        "import pickle, sys; from pathlib import Path\n"
        "assert pickle.loads(Path(sys.argv[1]).read_bytes()).name == 'net'\n"
        "assert 'tvm' not in sys.modules and 'torch' not in sys.modules\n"
    )
    subprocess.run(
        [sys.executable, "-c", source, str(file)], check=True, cwd=Path(__file__).parents[2]
    )
