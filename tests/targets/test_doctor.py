"""doctor: each finding says what to type."""

import importlib.metadata

import numpy
import pytest
from packaging.requirements import Requirement

from levit_deploy.targets.doctor import (
    check_emulators,
    check_package,
    check_packages,
    check_writable,
)


def test_an_installed_package_is_named_with_its_version():
    finding = check_package(Requirement("numpy>=1.0"))
    assert finding.ok
    assert finding.detail == numpy.__version__
    assert finding.hint is None


@pytest.mark.parametrize("text", ["numpy>=9999", "levit-deploy-no-such-package>=1.0"])
def test_an_old_or_absent_package_says_how_to_install_it(text):
    finding = check_package(Requirement(text))
    assert not finding.ok
    assert finding.hint == f'pip install "{text}"'


def test_torch_comes_without_cuda(monkeypatch):
    """From PyPI it would be 4 GB more."""
    line = "pip install torch --index-url https://download.pytorch.org/whl/cpu"
    assert check_package(Requirement("torch>=9999")).hint == line
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ["numpy", "nvidia-cublas==13"])
    finding = check_package(Requirement("torch>=2"))
    assert finding.ok
    assert finding.detail.endswith(f"4 GB for GPUs that nothing here uses; without them: {line}")


def test_without_the_distribution_there_is_one_finding(monkeypatch):
    def not_found(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", not_found)
    (finding,) = check_packages()
    assert not finding.ok
    assert finding.hint == "pip install levit-deploy"


def test_optional_packages_are_not_asked_for(monkeypatch):
    requirements = ["numpy>=1.0", 'pytest>=9; extra == "test"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: requirements)
    assert [finding.what for finding in check_packages()] == ["numpy"]


def test_emulators_are_optional(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    findings = check_emulators()
    assert {finding.what for finding in findings} == {"qemu-x86_64", "qemu-aarch64", "qemu-arm"}
    assert not any(finding.ok or finding.required for finding in findings)
    assert {finding.hint for finding in findings} == {"apt-get install qemu-user"}


def test_a_folder_yet_to_be_made_counts_by_its_parent(tmp_path):
    assert check_writable(tmp_path / "a" / "b").ok


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    finding = check_writable(tmp_path / "a")
    assert not finding.ok
    assert finding.hint == "choose another: export XDG_CACHE_HOME=DIR"
