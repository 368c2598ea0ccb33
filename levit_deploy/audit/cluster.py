"""The workers of a Dask cluster: one that runs, or one that is started here for this audit."""

from __future__ import annotations

import logging
import signal
import tempfile
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING

from levit_deploy import __version__
from levit_deploy.audit.order import Order, chunk_of, nearness_of, release
from levit_deploy.audit.workers import Workers
from levit_deploy.errors import DeployError

if TYPE_CHECKING:
    from distributed import Client, LocalCluster

LOCAL = "local"
_PATIENCE_S = 5  # for a scheduler's first answer, and for its first worker


@contextmanager
def cluster_workers(address: str, order: Order, jobs: int) -> Iterator[Workers]:
    """`address`: of a scheduler, or LOCAL for `jobs` processes of our own on this machine.

    What a worker did when it died is done again by another. Raises DeployError if Dask is not
    installed, nobody answers, there are no workers or other versions of us on them, or if all is
    lost on the way.
    """
    check_installed()
    from distributed.comm import CommClosedError
    from distributed.scheduler import KilledWorker

    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # errors are ours to say
    with ExitStack() as stack:
        client = stack.enter_context(_connected(address, jobs))
        _check_versions(client, address)
        stack.callback(client.run, release, order.token, on_error="ignore")
        executor = client.get_executor(pure=False)
        stack.callback(executor.shutdown, wait=False)
        try:
            yield Workers(executor, partial(chunk_of, order), partial(nearness_of, order))
        except KilledWorker as error:
            raise DeployError(
                f"workers of `{address}` died one after the other at the same images",
                hint="look at their logs, and go on: --resume",
            ) from error
        except (CancelledError, CommClosedError) as error:
            raise DeployError(
                f"the cluster `{address}` is gone", hint="start it again, and go on: --resume"
            ) from error


def check_installed() -> None:
    """Raise DeployError if there is no Dask."""
    if find_spec("distributed") is None:
        raise DeployError(
            "--cluster needs Dask, which is not installed",
            hint='pip install "levit-deploy[cluster]"',
        )


@contextmanager
def _connected(address: str, jobs: int) -> Iterator[Client]:
    from distributed import Client

    hint = "dask scheduler; dask worker ADDRESS on each machine; --cluster tcp://HOST:8786"
    with ExitStack() as stack:
        place = stack.enter_context(_own_cluster(jobs)) if address == LOCAL else address
        try:
            client = stack.enter_context(Client(place, timeout=_PATIENCE_S, set_as_default=False))
        except Exception as error:  # of many kinds, for one and the same mistake
            why = str(error).partition("\n")[0]
            raise DeployError(
                f"no Dask scheduler answers at `{address}`: {why or type(error).__name__}",
                hint=hint,
            ) from error
        try:
            client.wait_for_workers(1, timeout=_PATIENCE_S)
        except TimeoutError as error:
            raise DeployError(f"the cluster `{address}` has no workers", hint=hint) from error
        yield client


@contextmanager
def _own_cluster(processes: int) -> Iterator[LocalCluster]:
    from distributed import LocalCluster

    with (
        tempfile.TemporaryDirectory(prefix="levit-deploy-") as folder,
        ThreadPoolExecutor(1, initializer=_not_interrupted) as starter,
    ):
        started = starter.submit(
            LocalCluster,
            n_workers=processes,
            threads_per_worker=1,
            memory_limit=0,
            local_directory=folder,
            dashboard_address=None,
            security=True,  # a key of its own: nobody else on this machine is let in
            silence_logs=logging.CRITICAL,
        )
        try:
            yield started.result()
        finally:
            started.result().close()


def _not_interrupted() -> None:
    """Ctrl-C is for the command alone: what this thread starts never hears of it."""
    resource_tracker.ensure_running()  # starting it would let the thread be interrupted again
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _check_versions(client: Client, address: str) -> None:
    hint = f"on every worker: pip install levit-deploy=={__version__}"
    try:
        versions = client.run(_version)
    except Exception as error:  # whatever its Python says of a module that it has not
        raise DeployError(f"a worker of `{address}` is without us: {error}", hint=hint) from error
    for worker, version in versions.items():
        if version != __version__:
            raise DeployError(f"worker `{worker}` has levit-deploy {version}", hint=hint)


def _version() -> str:
    return __version__
