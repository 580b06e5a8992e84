"""The errors that a user may meet, all in one tree.

Every error says *where* (a file, a setting), *why* (what is wrong) and *what to do*. Each class is also the
builtin it refines, so ordinary ``except OSError`` code keeps working, and each survives pickling, because errors
travel from DataLoader workers and cluster nodes.
"""


class WsiPipelineError(Exception):
    """Base of every error this package raises on purpose.

    Args:
        where: The file, setting or thing concerned.
        why: What is wrong with it, without a closing full stop.
        hint: What the user can do about it; empty where there is nothing to add.
    """

    def __init__(self, where: object, why: str, hint: str = "") -> None:
        self.where = str(where)
        self.why = why
        self.hint = hint
        # ``args`` is what pickle rebuilds the error from; set here because OSError would rewrite it.
        self.args = (self.where, self.why, self.hint)

    def __str__(self) -> str:
        text = f"{self.where}: {self.why}."
        return f"{text} {self.hint}" if self.hint else text


class SlideNotFoundError(WsiPipelineError, FileNotFoundError):
    """A slide, a folder or a list of slides does not exist."""


class SlideFormatError(WsiPipelineError, ValueError):
    """A file is there but is no slide that any reader understands."""


class SlideReadError(WsiPipelineError, OSError):
    """A slide opened, but some of its pixels cannot be read (truncated file, corrupt tile)."""


class ResolutionError(WsiPipelineError, ValueError):
    """The resolution is missing, is nonsense, or does not suit the model."""


class DatasetError(WsiPipelineError, ValueError):
    """Labelled patches or their split cannot be used."""


class BundleError(WsiPipelineError, ValueError):
    """A model bundle is missing, incomplete, altered or unsafe to load."""


class ConfigError(WsiPipelineError, ValueError):
    """A setting is unknown or has an impossible value."""


class InferenceError(WsiPipelineError, RuntimeError):
    """The network cannot run on this device or gave scores that are not finite."""


class OutputError(WsiPipelineError, OSError):
    """Results cannot be written: no permission, no space, or another run holds the folder."""


class ResultsMismatchError(WsiPipelineError, ValueError):
    """Results that are already there belong to another slide, model or settings."""


class ClusterError(WsiPipelineError, RuntimeError):
    """The cluster cannot be reached or lost its workers."""


class TrainingError(WsiPipelineError, RuntimeError):
    """A training cannot go on: the loss is not finite, or an interrupted one is of another recipe."""
