"""Where the time of a slide goes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Stopwatch:
    """Seconds by stage."""

    seconds: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    def finish(self) -> dict[str, float]:
        """All stages and the ``total`` since the watch was made, rounded to milliseconds."""
        stages = {**self.seconds, "total": time.perf_counter() - self.started}
        return {stage: round(seconds, 3) for stage, seconds in stages.items()}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
