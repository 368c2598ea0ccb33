"""What machines say of themselves, and what is made of it.

The texts in facts/ are typed from the documentation of the boards and of the kernel, not recorded.
"""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from levit_deploy.errors import DeployError
from levit_deploy.machines import facts as facts_module
from levit_deploy.machines.condition import held_back, target_of, throttling, what_to_fix
from levit_deploy.machines.facts import Facts, parse_facts
from levit_deploy.targets.host import read_cpu

KIB = 1024
TYPED = Path(__file__).parent / "facts"
FITTING = {
    "raspberry-pi-3": "rpi3",
    "raspberry-pi-4": "rpi4",
    "raspberry-pi-5": "rpi5",
    "graviton3": "arm64-i8mm",
    "rk3399-musl": "arm64",
    "alder-lake-laptop": "x86-64-v3-vnni",
    "android-phone": "arm64-dotprod",
}


def typed(name: str) -> Facts:
    return parse_facts((TYPED / f"{name}.txt").read_text())


def remedies(name: str) -> list[str]:
    return [fix.remedy for fix in what_to_fix(typed(name))]


@pytest.mark.parametrize("name", FITTING)
def test_the_target_is_the_board_or_its_kind_of_cpu(name: str):
    assert target_of(typed(name)).name == FITTING[name]


def test_every_typed_text_is_tested():
    assert {path.stem for path in TYPED.glob("*.txt")} == FITTING.keys()


def test_a_pi_5():
    pi = typed("raspberry-pi-5")
    (cores,) = pi.cores
    assert (cores.name, cores.numbers) == ("Cortex-A76", (0, 1, 2, 3))
    assert (cores.max_mhz, cores.mhz, cores.governor) == (2400, (2400,) * 4, "performance")
    caches = cores.l1d_bytes, cores.l2_bytes, cores.l3_bytes
    assert caches == (64 * KIB, 512 * KIB, 2048 * KIB)
    assert pi.cpu is not None
    assert (pi.cpu.model, pi.cpu.l2_bytes) == ("Cortex-A76", 512 * KIB)
    assert (pi.libc, pi.temperature_c, pi.throttled) == ("glibc-2.36", 48.25, 0)
    assert pi.runtimes == ("onnxruntime", "torch")
    assert pi.free_bytes == 7411232 * KIB
    assert remedies("raspberry-pi-5") == []


def test_fast_and_slow_cores_are_two_kinds():
    board = typed("rk3399-musl")
    assert [(kind.name, kind.numbers) for kind in board.cores] == [
        ("Cortex-A72", (4, 5)),
        ("Cortex-A53", (0, 1, 2, 3)),
    ]
    assert board.cpu.model == "Cortex-A53 + Cortex-A72"  # what tune and audit write down
    assert [kind.l2_bytes for kind in board.cores] == [1024 * KIB, 512 * KIB]
    assert board.cores[0].mhz == (600, 1800)
    assert board.fastest_first == (4, 5, 0, 1, 2, 3)
    assert board.pmus == {7: (0, 1, 2, 3), 8: (4, 5)}
    assert board.kind_of(3).max_mhz == 1416
    assert (board.libc, board.no_exec) == ("musl", "/tmp")
    assert "mount -o remount,exec /tmp" in remedies("rk3399-musl")
    assert board.runtimes is None
    assert board.temperature_c == pytest.approx(61.111), "the one of the CPU"


def test_a_hybrid_cpu():
    laptop = typed("alder-lake-laptop")
    assert [kind.numbers for kind in laptop.cores] == [(0, 1), (2, 3)]
    assert laptop.temperature_c == 88
    assert laptop.board == "LENOVO 21CB"
    assert "sudo sysctl kernel.perf_event_paranoid=2" in remedies("alder-lake-laptop")


def test_what_says_nothing_is_not_known():
    phone, cloud = typed("android-phone"), typed("graviton3")
    assert (phone.libc, phone.throttled, phone.no_exec) == ("android-33", None, None)
    assert [kind.l1d_bytes for kind in phone.cores] == [None, None]
    assert (cloud.cores[0].governor, cloud.cores[0].mhz, cloud.temperature_c) == (
        None,
        (None, None),
        None,
    )
    nothing = parse_facts("")
    assert (nothing.cpu, nothing.cores, nothing.free_bytes) == (None, (), None)
    assert list(what_to_fix(nothing)) == []


def test_a_pi_whose_programs_are_older_than_its_kernel():
    assert typed("raspberry-pi-3").programs_32bit
    assert not typed("raspberry-pi-4").programs_32bit
    assert remedies("raspberry-pi-3") == [
        "apps there take a library of --target armv7",
        "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
        "a stronger power supply",
        "a heat sink or a fan",
    ]


def test_what_the_firmware_of_a_pi_says_of_its_clock():
    assert throttling(typed("raspberry-pi-3")) == ((), ("under-voltage", "throttled"))
    now, since_boot = throttling(typed("raspberry-pi-4"))
    assert now == since_boot
    assert now == ("the clock is capped", "throttled", "at the soft limit of temperature")


def test_a_measurement_on_a_throttled_pi_is_called_one():
    cool = typed("raspberry-pi-5")
    assert held_back(cool, cool, 0, lowest_mhz=2400) is None
    under = replace(cool, throttled=0x50000)  # and in the mean time it is over
    assert held_back(cool, under, 0, lowest_mhz=2400) == "under-voltage, throttled"
    assert held_back(under, under, 0, lowest_mhz=2400) is None, "that was before"
    assert held_back(under, replace(under, throttled=0x50001), 0, 2400) == "under-voltage"


@pytest.mark.parametrize(
    ("hottest_c", "lowest_mhz", "said"),
    [
        (85.0, 1416, "1416 of 1800 MHz at 85 C"),
        (85.0, 1800, None),
        (75.0, 1416, None),
        (85.0, None, None),
        (None, 1416, None),
    ],
)
def test_without_firmware_it_is_a_low_clock_on_a_hot_machine(hottest_c, lowest_mhz, said):
    before = typed("rk3399-musl")
    after = replace(before, temperature_c=hottest_c)
    assert held_back(before, after, 4, lowest_mhz) == said


def test_a_machine_that_runs_none_of_ours():
    with pytest.raises(DeployError, match="riscv64` cannot run"):
        target_of(parse_facts("@ uname\nLinux 6.6.0 riscv64\n"))
    old = typed("raspberry-pi-3")
    assert old.cpu is not None
    with pytest.raises(DeployError, match="older than every target"):
        target_of(replace(old, cpu=replace(old.cpu, arch=read_cpu().arch, features=frozenset())))


SHELLS = [["sh"], ["bash", "--posix"], ["busybox", "sh"]]


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_the_script_says_of_this_machine_what_python_reads(shell: list[str]):
    if shutil.which(shell[0]) is None:
        pytest.skip(f"no {shell[0]}")
    script = facts_module._SCRIPT.read_text()
    done = subprocess.run([*shell, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    facts, cpu = parse_facts(done.stdout), read_cpu()
    assert facts.cpu is not None
    assert (facts.cpu.arch, facts.cpu.features) == (cpu.arch, cpu.features)
    assert "\\" not in script
    assert facts.free_bytes is not None
