"""Host detection on recorded /proc/cpuinfo texts and sysfs cache folders."""

from pathlib import Path

import pytest

from levit_deploy.errors import DeployError
from levit_deploy.targets.host import Cpu, host_target, parse_caches, parse_cpuinfo
from levit_deploy.targets.table import TARGETS, get_target
from levit_deploy.targets.target import Arch

RECORDED = Path(__file__).parent / "cpuinfo"
CLASSES = [target for target in TARGETS.values() if target.base is None]
EXPECTED = {
    "epyc-zen4": (Arch.X86_64, "x86-64-v4-bf16"),
    "xeon-gold-6148-skylake": (Arch.X86_64, "x86-64-v4"),
    "intel-n100-gracemont": (Arch.X86_64, "x86-64-v3-vnni"),
    "core-i7-4770-haswell": (Arch.X86_64, "x86-64-v3"),
    "atom-c3558-goldmont": (Arch.X86_64, "x86-64"),
    "raspberry-pi-3": (Arch.AARCH64, "arm64"),
    "raspberry-pi-5": (Arch.AARCH64, "arm64-dotprod"),
    "big-little-uneven": (Arch.AARCH64, "arm64"),
    "graviton3": (Arch.AARCH64, "arm64-i8mm"),
    "beaglebone-black": (Arch.ARMV7, "armv7"),
}
TOO_OLD = {"core2-q6600": Arch.X86_64, "tegra2-no-neon": Arch.ARMV7}


def recorded_cpu(name: str, arch: Arch) -> Cpu:
    model, features = parse_cpuinfo((RECORDED / f"{name}.txt").read_text())
    return Cpu(arch, model, features, l1d_bytes=None, l2_bytes=None)


def test_every_recorded_text_is_tested():
    assert {path.stem for path in RECORDED.glob("*.txt")} == EXPECTED.keys() | TOO_OLD.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_host_is_the_most_capable_target_that_runs(name):
    arch, expected = EXPECTED[name]
    cpu = recorded_cpu(name, arch)
    host = host_target(cpu, CLASSES)
    assert (host.name, host.base) == ("host", expected)
    assert cpu.runs(host)
    assert cpu.model in host.description
    assert host.l1d_bytes == TARGETS[expected].l1d_bytes, "unknown caches fall back to the class's"


@pytest.mark.parametrize("name", TOO_OLD)
def test_a_cpu_below_every_target_is_refused(name):
    with pytest.raises(DeployError, match="older than every target"):
        host_target(recorded_cpu(name, TOO_OLD[name]), CLASSES)


def test_a_cpu_runs_what_it_has_the_features_for():
    haswell = recorded_cpu("core-i7-4770-haswell", Arch.X86_64)
    running = {name for name, target in TARGETS.items() if haswell.runs(target)}
    assert running == {"x86-64", "x86-64-v3", "x86-64-any"}
    pi5 = recorded_cpu("raspberry-pi-5", Arch.AARCH64)
    assert pi5.runs(TARGETS["rpi4"])
    assert not pi5.runs(TARGETS["graviton3"])


def write_cache(folder: Path, index: int, level: str, kind: str, size: str) -> None:
    entry = folder / f"index{index}"
    entry.mkdir(parents=True)
    for name, value in {"level": level, "type": kind, "size": size}.items():
        (entry / name).write_text(value + "\n")


def test_caches_come_from_sysfs(tmp_path):
    write_cache(tmp_path, 0, "1", "Data", "48K")
    write_cache(tmp_path, 1, "1", "Instruction", "32K")
    write_cache(tmp_path, 2, "2", "Unified", "1280K")
    (tmp_path / "index3").mkdir()  # an entry without files, as some virtual machines have
    caches = parse_caches(tmp_path)
    assert caches == {1: 48 * 1024, 2: 1280 * 1024}
    model, features = parse_cpuinfo((RECORDED / "epyc-zen4.txt").read_text())
    host = host_target(Cpu(Arch.X86_64, model, features, caches[1], caches[2]), CLASSES)
    assert (host.l1d_bytes, host.l2_bytes) == (48 * 1024, 1280 * 1024)


def test_no_caches_in_sysfs(tmp_path):
    assert parse_caches(tmp_path / "missing") == {}


def test_this_machine_has_a_target():
    host = get_target("host")
    assert host.base in TARGETS
    assert host.l1d_bytes >= 16 * 1024
