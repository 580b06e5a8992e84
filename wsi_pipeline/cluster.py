"""The same batch on many machines: dask.distributed, one task a slide, paths and settings only."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING

from wsi_pipeline.errors import ClusterError, ConfigError
from wsi_pipeline.jobs import SlideJob
from wsi_pipeline.machine import available_cores
from wsi_pipeline.manifest import SlideResult, describe_error
from wsi_pipeline.pipeline import CellProgress, JobRunner, job_result, run_job

if TYPE_CHECKING:
    from distributed import Client

RETRIES = 2
"""On a local cluster a slide is given to another worker this often after its worker died; elsewhere the scheduler's
own setting ``allowed-failures`` counts."""

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
            if kind == "local":
                threads = max(1, len(available_cores()) // int(count))
                client = _local(int(count), threads, stack)
                jobs = [_with_readers(job, threads - 1) for job in jobs]
            else:
                client = _connect(address, stack)
            yield from _results(client, jobs)

    return runner


def _results(client: "Client", jobs: Sequence[SlideJob]) -> Iterator[SlideResult]:
    from distributed import CancelledError, as_completed
    from distributed.scheduler import KilledWorker

    job_of = {client.submit(_run_alone, job, pure=False): job for job in jobs}
    for future in as_completed(job_of):
        job = job_of[future]
        try:
            yield future.result()
        except KilledWorker as death:
            why = f"{death.allowed_failures + 1} workers died on it"
            lost = ClusterError(job.path, why, "Out of memory? See the workers' logs.")
            yield job_result(job, "failed", error=describe_error(lost))
        except CancelledError as error:
            raise ClusterError(
                "cluster", f"the scheduler was lost ({error})", "Run the same command again: finished work is kept."
            ) from error
        except (ImportError, AttributeError, TypeError) as error:
            odd = ClusterError(
                job.path, f"a worker cannot run it ({error})", "Install the same version on all workers."
            )
            yield job_result(job, "failed", error=describe_error(odd))


_ALONE = Lock()


def _run_alone(job: SlideJob) -> SlideResult:
    """One slide at a time in each worker process, however many threads it has: they share one network and device."""
    with _ALONE:
        return run_job(job)


def _with_readers(job: SlideJob, readers: int) -> SlideJob:
    """The job with its share of this machine's cores for reading, where the user does not say how many."""
    inference = job.settings.inference
    if inference.workers is not None:
        return job
    shared = inference.model_copy(update={"workers": readers})
    return replace(job, settings=job.settings.model_copy(update={"inference": shared}))


def _local(count: int, threads: int, stack: ExitStack) -> "Client":
    import dask
    from distributed import Client, LocalCluster

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
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
    except TimeoutError as error:
        raise ClusterError(
            address,
            f"has no workers, or does not answer, after {CONNECT_SECONDS} s",
            f"Start some: dask worker {address}",
        ) from error
    except (OSError, ValueError) as error:
        raise ClusterError(
            address, f"no dask scheduler answers ({error})", "Start one with `dask scheduler`, or check the address."
        ) from error
    return client
