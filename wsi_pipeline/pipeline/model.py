"""The model of a run: opened at once, its network loaded when it is first asked for."""

from functools import lru_cache
from typing import TYPE_CHECKING

from wsi_pipeline.config import InferenceSettings
from wsi_pipeline.errors import ConfigError
from wsi_pipeline.jobs import SlideJob
from wsi_pipeline.models.bundle import ModelBundle, load_bundle

if TYPE_CHECKING:
    from wsi_pipeline.inference import Predictor


def get_bundle(job: SlideJob) -> ModelBundle:
    """The model, opened once in each process.

    Raises:
        BundleError: where it cannot be opened.
        ConfigError: where it changed since the run began.
    """
    return _cached_bundle(job.bundle, job.bundle_digest)


@lru_cache(maxsize=1)
def _cached_bundle(bundle: str, digest: str) -> ModelBundle:
    loaded = load_bundle(bundle)
    if loaded.digest != digest:
        raise ConfigError("model", f"{bundle} changed while the run was going on", "Start the run again.")
    return loaded


def get_predictor(job: SlideJob) -> "Predictor":
    """The network, loaded once in each process.

    Raises:
        BundleError: where it cannot be loaded.
        ConfigError: where it changed since the run began, or its device is not there.
    """
    return _cached_predictor(job.bundle, job.bundle_digest, job.settings.inference, tta=job.settings.prediction.tta)


@lru_cache(maxsize=1)
def _cached_predictor(bundle: str, digest: str, inference: InferenceSettings, *, tta: bool) -> "Predictor":
    from wsi_pipeline.inference import Predictor, choose_device

    return Predictor(
        bundle=_cached_bundle(bundle, digest),
        device=choose_device(inference.device),
        batch_size=inference.batch_size,
        engine=inference.engine,
        precision=inference.precision,
        tta=tta,
        keep=True,
    )
