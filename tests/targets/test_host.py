"""Host detection on recorded /proc/cpuinfo texts and sysfs cache folders."""

from pathlib import Path

import pytest

from levit_deploy.errors import DeployError
from levit_deploy.targets.host import (
    SYSFS_CACHES,
    Cpu,
    host_target,
    parse_caches,
    parse_cpu,
    parse_cpuinfo,
    read_cpu,
)
from levit_deploy.targets.table import TARGETS, get_target
from levit_deploy.targets.target import Arch

RECORDED = Path(__file__).parent / "cpuinfo"
CLASSES = [target for target in TARGETS.values() if target.base is None]
EXPECTED = {
    "epyc-zen4": (Arch.X86_64, "x86-64-v4-vnni"),
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


def test_caches_come_from_sysfs():
    """The last line is of a virtual machine that leaves files out."""
    caches = parse_caches("Data 1 48K\nInstruction 1 32K\nUnified 2 1280K\nUnified\n\n")
    assert caches == {1: 48 * 1024, 2: 1280 * 1024}
    cpuinfo = (RECORDED / "epyc-zen4.txt").read_text()
    cpu = parse_cpu("Linux", "x86_64", cpuinfo, "Data 1 48K\nUnified 2 1280K\n")
    host = host_target(cpu, CLASSES)
    assert (host.l1d_bytes, host.l2_bytes) == (48 * 1024, 1280 * 1024)


def test_no_caches_in_sysfs():
    assert parse_caches("") == {}


def test_this_machine_is_read_from_its_files():
    size = SYSFS_CACHES / "index0" / "size"
    if not size.exists():
        pytest.skip("the kernel tells nothing of the caches")
    assert read_cpu().l1d_bytes == int(size.read_text().strip("K\n")) * 1024


def test_this_machine_has_a_target():
    host = get_target("host")
    assert host.base in TARGETS
    assert host.l1d_bytes >= 16 * 1024
