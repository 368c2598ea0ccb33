"""audit over a Dask cluster: the report of one process, whatever becomes of the workers."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import platformdirs
import pytest

from levit_deploy.audit import order
from levit_deploy.audit.images import open_audit_images
from tests.cli.conftest import DEADLINE_S, ROOT, Cli, Spawner, wait_for
from tests.cli.test_audit import audit_args, int8, report_bytes  # noqa: F401 (a fixture)
from tests.cli.test_bad_input import assert_refused

distributed = pytest.importorskip("distributed", reason='pip install "levit-deploy[cluster]"')
psutil = pytest.importorskip("psutil")  # distributed brings it

IMAGES = 130  # three chunks
MANY = 640  # ten


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled test images, as a .npz file."""
    path = tmp_path_factory.mktemp("data") / "images.npz"
    with np.load(ROOT / "tests" / "data" / "val_2000.npz") as val:
        np.savez(path, images=val["images"], labels=val["labels"])
    return path


@pytest.fixture(scope="module")
def in_threads() -> Iterator[str]:
    """The address of a scheduler with two workers, which are threads of this process."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
    ) as threads:
        yield threads.scheduler_address


def test_the_report_is_that_of_one_process(cli: Cli, fp32: Path, data: Path, in_threads: str):
    """Names are relative to where the command runs, which no worker knows."""
    shutil.copy(data, cli.folder / "copy.npz")
    args = audit_args(Path(os.path.relpath(fp32)), "copy.npz", "--images", str(IMAGES))
    for options in (("-o", "one"), ("-o", "spread", "--cluster", in_threads)):
        done = cli.run(*args, *options)
        assert done.returncode == 0, done.stderr
    assert report_bytes(cli.folder / "spread") == report_bytes(cli.folder / "one")


def test_a_worker_that_finds_other_files(
    cli: Cli, fp32: Path, data: Path, in_threads: str, monkeypatch: pytest.MonkeyPatch
):
    def fewer(*args, **options):
        return open_audit_images(*args, **{**options, "maximum": 2})

    monkeypatch.setattr(order, "open_audit_images", fewer)
    done = cli.run(*audit_args(fp32, data, "--images", "3", "--cluster", in_threads))
    assert_refused(done, 1, "finds other files or another CPU: images is `2`, not `3`")


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:1", "nowhere", "ftp://127.0.0.1:1", "tls://127.0.0.1:1"]
)
def test_a_wrong_address(cli: Cli, fp32: Path, data: Path, address: str):
    began = time.monotonic()
    done = cli.run(*audit_args(fp32, data, "--images", "1", "--cluster", address))
    assert "dask scheduler" in assert_refused(done, 1, f"no Dask scheduler answers at `{address}`")
    assert time.monotonic() - began < 60


def test_without_workers(cli: Cli, fp32: Path, data: Path):
    with distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=None) as empty:
        address = empty.scheduler_address
        done = cli.run(*audit_args(fp32, data, "--images", "1", "--cluster", address))
    assert_refused(done, 1, f"the cluster `{address}` has no workers")


def test_without_dask(cli: Cli, fp32: Path, data: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("levit_deploy.audit.cluster.find_spec", lambda name: None)
    done = cli.run(*audit_args(fp32, data, "--cluster", "local"))
    hint = assert_refused(done, 1, "--cluster needs Dask")
    assert hint == 'pip install "levit-deploy[cluster]"'


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_changes_nothing(
    spawner: Spawner,
    int8: Path,  # noqa: F811
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """In a chunk, and in a layer; each audit measures all layers itself."""
    args = audit_args(int8, data, "--images", str(MANY), "--layer-images", "4", "--sensitivity")
    caches = {name: spawner.folder / "cache" / name for name in ("one", "spread")}
    for cache in caches.values():
        (cache / "levit-deploy").mkdir(parents=True)
        linkers = platformdirs.user_cache_path("levit-deploy") / "zig"
        (cache / "levit-deploy" / "zig").symlink_to(linkers)  # minutes of work to make anew
    monkeypatch.setenv("XDG_CACHE_HOME", str(caches["one"]))
    done = spawner.run(*args, "-o", "one")
    assert done.returncode == 0, done.stderr

    chunks = spawner.folder / "spread" / ".audit"
    monkeypatch.setenv("XDG_CACHE_HOME", str(caches["spread"]))
    layers = caches["spread"] / "levit-deploy" / "sensitivities"
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as processes:
        address = processes.scheduler_address
        with spawner.start(*args, "-o", "spread", "--cluster", address) as audit:
            for made in (lambda: list(chunks.glob("chunk-*")), lambda: list(layers.glob("*"))):
                wait_for(lambda made=made: made() or audit.poll() is not None)
                os.kill(next(iter(processes.workers.values())).pid, signal.SIGKILL)
                assert audit.poll() is None, audit.communicate()
            stderr = audit.communicate(timeout=DEADLINE_S)[1]
    assert audit.returncode == 0, stderr
    assert report_bytes(spawner.folder / "spread") == report_bytes(spawner.folder / "one")


@pytest.mark.slow
def test_an_interruption_leaves_no_worker_behind(
    spawner: Spawner, fp32: Path, data: Path, monkeypatch: pytest.MonkeyPatch
):
    """Ctrl-C of a terminal goes to all processes at once."""
    monkeypatch.setenv("TMPDIR", str(temporary := spawner.folder / "temporary"))
    temporary.mkdir()
    chunks = spawner.folder / "report" / ".audit"
    args = audit_args(fp32, data, "--images", str(MANY), "--cluster", "local", "--jobs", "2")
    with spawner.start(*args) as audit:
        wait_for(lambda: list(chunks.glob("chunk-*")) or audit.poll() is not None)
        children = psutil.Process(audit.pid).children(recursive=True)
        assert len(children) >= 2
        for process in (audit, *children):
            process.send_signal(signal.SIGINT)
        stderr = audit.communicate(timeout=60)[1]
    assert audit.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert stderr.splitlines()[-1] == "error: interrupted"
    assert not psutil.wait_procs(children, timeout=5)[1]
    assert list(temporary.iterdir()) == []
    done = spawner.run(*args, "--resume")
    assert done.returncode == 0, done.stderr
