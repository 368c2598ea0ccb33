"""Systems as the command line and the manifest write them, and what their files are called."""

import pytest

from levit_deploy.errors import DeployError
from levit_deploy.targets.system import OLDEST_GLIBC, Arch, Family, Os, System
from levit_deploy.targets.table import get_target


@pytest.mark.parametrize(
    ("text", "system"),
    [
        ("glibc-2.17", OLDEST_GLIBC),
        ("glibc-2.28", System(Family.GLIBC, (2, 28))),
        ("musl", System(Family.MUSL)),
        ("android-21", System(Family.ANDROID, (21,))),
        ("windows", System(Family.WINDOWS)),
        ("macos-11.0", System(Family.MACOS, (11, 0))),
    ],
)
def test_systems_are_read_as_they_are_written(text: str, system: System) -> None:
    assert System.parse(text) == system
    assert str(system) == text


def test_the_release_of_android_need_not_be_said() -> None:
    assert str(System.parse("android")) == "android-21"


@pytest.mark.parametrize(
    "text",
    ["glibc", "glibc-2", "uclibc", "glibc-2.28.1", "glibc-22.8", "", "musl-1.2", "android-", "-21"],
)
def test_unknown_libc(text: str) -> None:
    with pytest.raises(DeployError, match="unknown C library"):
        System.parse(text)


@pytest.mark.parametrize(
    ("text", "oldest"), [("glibc-2.5", "glibc-2.17"), ("android-19", "android-21")]
)
def test_too_old(text: str, oldest: str) -> None:
    with pytest.raises(DeployError, match=f"`{text}` is older") as caught:
        System.parse(text)
    assert caught.value.hint == f"--libc {oldest}"


@pytest.mark.parametrize("os", ["linux", "windows", "macos", "ios"])
def test_os_alone(os: str) -> None:
    system = System.of(os, None)
    assert system.os == os
    assert System.parse(str(system)) == system


def test_os_and_libc_must_fit() -> None:
    assert System.of("linux", System.parse("android")).os is Os.ANDROID
    with pytest.raises(DeployError, match=r"`--libc musl` is none of `windows`"):
        System.of("windows", System.parse("musl"))


@pytest.mark.parametrize("os", ["windows", "macos", "ios"])
def test_systems_without_an_architecture(os: str) -> None:
    with pytest.raises(DeployError, match=f"no {os} libraries for `{Arch.ARMV7}`"):
        get_target("armv7").on(System.of(os, None))


def test_names_of_files() -> None:
    names = {
        "glibc-2.17": ("libnet.so", "libnet.a"),
        "android": ("libnet.so", "libnet.a"),
        "windows": ("net.dll", "net.lib", "net_static.lib"),
        "macos": ("libnet.dylib", "libnet.a"),
        "ios": ("libnet.a",),
    }
    assert {text: System.parse(text).libraries("net") for text in names} == names


@pytest.mark.parametrize("name", ["windows", "android"])
def test_a_system_is_not_a_target(name: str) -> None:
    with pytest.raises(DeployError, match=f"`{name}` is a system, not a CPU") as caught:
        get_target(name)
    assert name in str(caught.value.hint)
