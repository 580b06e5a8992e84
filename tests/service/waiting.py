"""Waiting for a service, with an end."""

import time
from collections.abc import Callable
from typing import Any

from starlette.testclient import TestClient


def wait_for(look: Callable[[], Any], seconds: float = 90) -> Any:
    """What `look` gives, once it gives something."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come")


def wait_for_end(client: TestClient, job_id: str) -> dict[str, Any]:
    """The document of a job once it has ended."""

    def look() -> dict[str, Any] | None:
        job: dict[str, Any] = client.get(f"/api/jobs/{job_id}").json()
        return job if job["status"] in {"done", "failed", "cancelled"} else None

    return wait_for(look)
