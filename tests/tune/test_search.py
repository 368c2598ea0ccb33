"""The search where kernels run: what is timed, what is dropped, who does the work."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

import pytest

from levit_deploy.compiler.kernels.attention.spec import AttentionInt8Spec, AttentionSpec
from levit_deploy.compiler.kernels.conv.spec import ConvSpec, Destination, Source
from levit_deploy.compiler.kernels.gemm.spec import GemmInt8Spec, GemmSpec, Layout
from levit_deploy.compiler.kernels.head import HeadSpec
from levit_deploy.compiler.kernels.kernel import Activation, Kernel
from levit_deploy.compiler.tiles.registry import Spec, Tile, family_of
from levit_deploy.compiler.tiles.table import TileRow
from levit_deploy.compiler.tuning import batch as batches
from levit_deploy.compiler.tuning import search as tiles
from levit_deploy.compiler.tuning.batch import Batch, build_batch
from levit_deploy.compiler.tuning.search import candidates, compile_candidates
from levit_deploy.errors import DeployError
from levit_deploy.machines.local import LocalMachine
from levit_deploy.machines.machine import Machine, MachineLostError, RunError, Workplace
from levit_deploy.targets.host import Cpu, read_cpu
from levit_deploy.targets.table import get_target
from levit_deploy.targets.target import Target
from levit_deploy.targets.toolchain import find_toolchain
from levit_deploy.tune.search import Search, plan_search
from levit_deploy.tune.timer import KernelTimer
from tests.machine import prefix_for

HOST = get_target("host")
FACTS = Path(__file__).parents[1] / "machines" / "facts"
GEMM = GemmSpec(49, 64, 32, Activation.HARDSWISH, residual=False, layout=Layout.ROWS)
SPECS = (
    GEMM,
    GemmSpec(16, 40, 24, Activation.NONE, residual=True, layout=Layout.ROWS),
    GemmInt8Spec(9, 48, 40, Activation.NONE, False, Layout.PANELS, gather_side=5),
    HeadSpec(tokens=4, channels=48, classes=100, residual=True),
    ConvSpec(32, 3, 8, Activation.HARDSWISH, Source.IMAGE_F32, Destination.PADDED_INT16),
    ConvSpec(16, 8, 16, Activation.HARDSWISH, Source.PADDED, Destination.PADDED),
    ConvSpec(16, 16, 32, Activation.NONE, Source.PADDED_INT16, Destination.TOKENS),
    AttentionSpec(2, 16, 32, query_side=4, key_side=7, stride=2, fused_qkv=False),
    AttentionInt8Spec(2, 16, 32, query_side=4, key_side=4, stride=1, fused_qkv=True),
)


def skip_if_busy(error: DeployError) -> None:
    if "too busy" not in error.message:
        raise error
    pytest.skip(error.message)  # others use its cores: no time would be right


@pytest.mark.slow  # a gate on two cores has none to itself
def test_a_kernel_is_timed_where_it_runs():
    search = plan_search(find_toolchain(HOST), [], count=2)
    try:
        (row,) = search.rows([GEMM])
    except DeployError as error:
        skip_if_busy(error)
    assert row.spec == GEMM
    assert row.target == HOST.base
    assert row.tile in candidates(GEMM, HOST, 2)
    assert row.microseconds is not None
    assert row.microseconds > 0
    assert row.measured_on.startswith(f"{read_cpu().model}, levit-deploy ")
    assert "; this CPU, Linux " in row.measured_on
    assert search.has_made(row)
    assert search.has_made(replace(row, measured_on=search.measured_by))
    assert not search.has_made(replace(row, measured_on=f"another {row.measured_on}"))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: family_of(spec).name)
def test_a_kernel_is_modelled_where_it_does_not(spec: Spec):
    target = get_target("rpi4")
    if read_cpu().runs(target):
        pytest.skip("this machine is such a board")
    (row,) = plan_search(find_toolchain(target), [], count=3).rows([spec])
    assert row.spec == spec
    assert row.ratio <= 1
    assert row.target == "rpi4"
    assert row.microseconds is None
    assert row.measured_on.startswith("modelled")


def timed(
    spec: Spec, target: Target, count: int, folder: Path, rounds: int = 1
) -> Sequence[float | None]:
    """Microseconds of some tiles, in a program that takes a busy machine as it is."""
    machine = LocalMachine(prefix_for(target))
    with ThreadPoolExecutor(2) as pool, machine.workplace() as place:
        batch = Search(find_toolchain(target), (machine,), count=count).build(spec, pool, folder)
        timer = KernelTimer(batch, place, machine.name)
        return timer.microseconds(range(len(batch.tiles)), rounds)


@pytest.fixture
def any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy it is; and little work for an emulator."""
    monkeypatch.setattr(batches, "CALM", 1e9)
    monkeypatch.setattr(batches, "COLD_BYTES", 1 << 16)


@pytest.mark.usefixtures("any_machine")
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: family_of(spec).name)
def test_all_tiles_compute_the_same(spec: Spec, tmp_path: Path):
    times = timed(spec, HOST, 3, tmp_path / "work")
    assert len(times) > 1
    assert all(time is not None and time > 0 for time in times)


@pytest.mark.slow
@pytest.mark.usefixtures("any_machine")
@pytest.mark.parametrize("name", ["arm64", "arm64-dotprod", "arm64-i8mm", "armv7", "x86-64"])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: family_of(spec).name)
def test_all_tiles_compute_the_same_elsewhere(spec: Spec, name: str, tmp_path: Path):
    times = timed(spec, get_target(name), 12, tmp_path / "work")
    assert all(time is not None for time in times)


@pytest.mark.usefixtures("any_machine")
def test_a_wrong_tile_is_never_kept(monkeypatch: pytest.MonkeyPatch):
    """All tiles but the default one are of an easier layer: faster, and wrong."""
    generate = tiles.generate

    def other_layer(symbol: str, spec: Spec, tile: Tile, target: Target) -> Kernel:
        assert isinstance(spec, GemmSpec)
        easier = replace(spec, activation=Activation.NONE)
        return generate(symbol, spec if symbol == "k0" else easier, tile, target)

    monkeypatch.setattr(tiles, "generate", other_layer)
    notes: list[str] = []
    (row,) = plan_search(find_toolchain(HOST), [], 3, notes.append).rows([GEMM])
    assert row.tile == candidates(GEMM, HOST)[0]
    assert row.ratio == 1
    assert len(notes) == 2
    assert all(note.startswith("`this CPU`: tile `") and "is wrong" in note for note in notes)


@pytest.mark.usefixtures("any_machine")
def test_a_tile_that_crashes_or_hangs_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batches, "LONGEST_CALL_S", 1)
    toolchain = find_toolchain(HOST)
    with ThreadPoolExecutor(2) as pool:
        (found,) = compile_candidates(GEMM, HOST, 1, pool)
    objects = [found.emit()]
    bodies = ("return 0;", "__builtin_trap();", 'for (;;) __asm__ volatile("");')
    for index, body in enumerate(bodies, 1):
        source, compiled = tmp_path / f"{index}.c", tmp_path / f"{index}.o"
        source.write_text(f"int k{index}(void); int k{index}(void) {{ {body} }}")
        toolchain.compile(source, compiled)
        objects.append(compiled.read_bytes())
    kernels = [replace(found.kernel, symbol=f"k{index}") for index in range(4)]
    with LocalMachine().workplace() as place:
        (tmp_path / "work").mkdir()
        batch = build_batch(GEMM, [found.tile] * 4, kernels, objects, toolchain, tmp_path / "work")
        timer = KernelTimer(batch, place, "here")
        times = timer.microseconds(range(4), 1)
    assert times[0] is not None
    assert list(times[1:]) == [None] * 3
    assert timer.wrong == {1, 2, 3}


def test_a_machine_that_stays_noisy_is_not_believed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batches, "CALM", 0.5)
    monkeypatch.setattr(batches, "PATIENCE", 3)
    with pytest.raises(DeployError, match="`this CPU` is too busy to time kernels") as caught:
        list(plan_search(find_toolchain(HOST), [], count=1).rows([GEMM]))
    assert caught.value.hint


class Board(Machine):
    """Says after `seconds` that every kernel takes a microsecond. After `kernels` of them, `error`
    happens."""

    def __init__(
        self,
        name: str,
        model: str = "a CPU",
        seconds: float = 0.0,
        kernels: int = 1000,
        error: DeployError | None = None,
    ) -> None:
        self.name, self.model, self.seconds = name, model, seconds
        self.kernels, self.error = kernels, error
        self.places = 0
        self.facts = "raspberry-pi-4"
        self.masks: set[int] = set()

    def cpu(self) -> Cpu:
        return replace(read_cpu(), model=self.model)

    @contextmanager
    def workplace(self) -> Iterator[Workplace]:
        self.places += 1
        assert threading.current_thread() is not threading.main_thread()
        yield BoardPlace(self)

    def shell(self, script: str) -> str:
        """It is a Raspberry Pi or, with cores of two kinds, another."""
        return (FACTS / f"{self.facts}.txt").read_text()


class BoardPlace(Workplace):
    def __init__(self, board: Board) -> None:
        self.board = board

    def put(self, path: Path, name: str, *, executable: bool = False) -> None:
        assert path.name == name

    def run(
        self, command: Sequence[str], timeout_s: float = 0, *, env: Mapping[str, str] | None = None
    ) -> str:
        time.sleep(self.board.seconds)
        self.board.masks.add(int(command[1]))
        if self.board.places > self.board.kernels:
            assert self.board.error
            raise self.board.error
        times = ", ".join(["1.0"] * len(command[3:]))
        return (
            f'{{"os": "Linux 6.6", "clock_mhz": 1500.2, "busy": false, "microseconds": [{times}]}}'
        )

    def get(self, name: str) -> bytes:
        raise AssertionError(name)

    def start(self, command: Sequence[str], stderr: IO[str]) -> object:
        raise AssertionError(command)


MANY = [replace(GEMM, rows=rows) for rows in range(1, 13)]


@pytest.fixture
def instant_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """No compiler: the order of work is looked at, and how long boards take for it."""

    def build(self: Search, spec: Spec, pool: object, folder: Path) -> Batch:
        folder.mkdir()
        found = tuple(candidates(spec, HOST, self.count))
        return Batch(spec, found, folder / "time_kernels", folder / "operands")

    monkeypatch.setattr(Search, "build", build)


def rows_of(*boards: Board, notes: list[str] | None = None) -> list[TileRow]:
    note = [].append if notes is None else notes.append
    return list(plan_search(find_toolchain(HOST), boards, 2, note).rows(MANY))


@pytest.mark.usefixtures("instant_build")
def test_equal_boards_share_the_kernels():
    def seconds(*boards: Board) -> float:
        start = time.monotonic()
        assert {row.spec for row in rows_of(*boards)} == set(MANY)
        return time.monotonic() - start

    one = seconds(Board("one", seconds=0.05))
    assert one >= 1.8 * seconds(Board("one", seconds=0.05), Board("two", seconds=0.05))


@pytest.mark.usefixtures("instant_build")
def test_rows_say_which_board_measured_them():
    rows = rows_of(Board("ssh://one"), Board("ssh://two", seconds=0.01))
    boards = {row.measured_on.split("; ")[1] for row in rows}
    assert boards == {f"ssh://{name}, Linux 6.6, 1500 MHz" for name in ("one", "two")}


@pytest.mark.usefixtures("instant_build")
@pytest.mark.parametrize("error", [MachineLostError("`two` is gone"), RunError("crashed")])
def test_the_work_of_a_lost_board_goes_to_the_others(error: DeployError):
    notes: list[str] = []
    two = Board("two", kernels=3, error=error)
    rows = rows_of(Board("one", seconds=0.005), two, notes=notes)
    assert {row.spec for row in rows} == set(MANY)
    assert sum("; two," in row.measured_on for row in rows) == 3
    assert two.places == 4
    (note,) = notes
    assert error.message in note
    assert note.endswith(": its kernels go to the other boards")


@pytest.mark.usefixtures("instant_build")
def test_without_a_board_left_the_rows_so_far_are_there():
    boards = [
        Board(name, kernels=count, error=MachineLostError(f"`{name}` is gone"))
        for name, count in (("one", 2), ("two", 4))
    ]
    found: list[TileRow] = []
    with pytest.raises(DeployError, match="is gone") as caught:
        found.extend(plan_search(find_toolchain(HOST), boards, 2).rows(MANY))
    assert len(found) == 6
    assert "goes on where it stopped" in (caught.value.hint or "")


@pytest.mark.usefixtures("instant_build")
@pytest.mark.parametrize(("facts", "mask"), [("raspberry-pi-4", 0), ("rk3399-musl", 0b110000)])
def test_kernels_are_timed_on_the_fastest_cores(facts: str, mask: int):
    board = Board("one")
    board.facts = facts
    rows_of(board)
    assert board.masks == {mask}


def test_different_boards_are_refused():
    boards = [Board("ssh://one", "a CPU"), Board("ssh://two", "another")]
    with pytest.raises(DeployError, match="`ssh://one` has a `a CPU`, `ssh://two` a `another`"):
        plan_search(find_toolchain(HOST), boards)


def test_a_board_that_does_not_run_the_target_is_refused():
    target = get_target("rpi5")
    if read_cpu().runs(target):
        pytest.skip("it does")
    with pytest.raises(DeployError, match="`ssh://one`") as caught:
        plan_search(find_toolchain(target), [Board("ssh://one")])
    assert caught.value.hint
