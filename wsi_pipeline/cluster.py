"""The same batch on many machines: dask.distributed, one task a slide, paths and settings only."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from wsi_pipeline.errors import ClusterError, ConfigError
from wsi_pipeline.jobs import SlideJob
from wsi_pipeline.manifest import SlideResult, describe_error
from wsi_pipeline.patches import available_cores
from wsi_pipeline.pipeline import CellProgress, JobRunner, job_result, run_job

if TYPE_CHECKING:
    from distributed import Client

RETRIES = 2
"""A slide is given to another worker this often after its worker died."""

CONNECT_SECONDS = 20


def cluster_runner(address: str) -> JobRunner:
    """What `pipeline.run` gives its jobs to.

    Args:
        address: ``local:N`` for N processes on this machine, or a scheduler's ``tcp://host:port``. Its workers need
            this package, the slides and the output folder under the same paths.

    Raises:
        ConfigError: where the address has neither form.
    """
    kind, _, count = address.partition(":")
    if kind == "local" and not (count.isdigit() and int(count) > 0):
        raise ConfigError("cluster", f"{address!r} names no number of workers", "Write local:4 for four.")
    if kind != "local" and "://" not in address:
        raise ConfigError(
            "cluster", f"{address!r} is no address", "Write local:4, or tcp://host:8786 with --scheduler."
        )

    def runner(jobs: Sequence[SlideJob], on_cells: CellProgress) -> Iterator[SlideResult]:
        del on_cells  # the cells of a slide are counted where it runs
        with ExitStack() as stack:
            client = _local(int(count), stack) if kind == "local" else _connect(address, stack)
            yield from _results(client, jobs)

    return runner


def _results(client: "Client", jobs: Sequence[SlideJob]) -> Iterator[SlideResult]:
    from distributed import as_completed
    from distributed.scheduler import KilledWorker

    job_of = {client.submit(run_job, job, pure=False, retries=RETRIES): job for job in jobs}
    for future in as_completed(job_of):
        job = job_of[future]
        try:
            yield future.result()
        except KilledWorker:
            error = ClusterError(
                job.source.path, f"its worker died {RETRIES + 1} times", "Out of memory? See the workers' logs."
            )
            yield job_result(job, "failed", error=describe_error(error))


def _local(count: int, stack: ExitStack) -> "Client":
    import dask
    from distributed import Client, LocalCluster

    threads = max(1, len(available_cores()) // count)
    stack.enter_context(
        dask.config.set(
            {
                # Daemons may not start processes of their own, and slides are read by such.
                "distributed.worker.daemon": False,
                "distributed.scheduler.allowed-failures": RETRIES,
                "distributed.nanny.pre-spawn-environ": {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
            }
        )
    )
    cluster = stack.enter_context(
        LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            dashboard_address=None,
            host="127.0.0.1",
            silence_logs=logging.ERROR,
        )
    )
    client: Client = stack.enter_context(Client(cluster))
    return client


def _connect(address: str, stack: ExitStack) -> "Client":
    from distributed import Client

    try:
        client: Client = stack.enter_context(Client(address, timeout=CONNECT_SECONDS))
    except (OSError, ValueError) as error:
        raise ClusterError(
            address, f"no dask scheduler answers ({error})", "Start one with `dask scheduler`, or check the address."
        ) from error
    return client
