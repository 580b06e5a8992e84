"""The service as a server."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from threading import Event
from types import FrameType

import uvicorn

from wsi_pipeline.config import RESEARCH_USE
from wsi_pipeline.service.app import create_app
from wsi_pipeline.service.options import ServiceOptions
from wsi_pipeline.service.service import open_service
from wsi_pipeline.viewer.server import address_of, listen, with_token


def serve(options: ServiceOptions, *, port: int | None = None, announce: Callable[[str], None]) -> None:
    """Serve until Ctrl-C or SIGTERM. A job that runs then goes on with the next start.

    Args:
        options: What may be read, and by whom; an address beyond this machine gets a token where it has none.
        port: None for the usual one, or any free one.
        announce: Is told, line by line, where the service is.

    Raises:
        ConfigError: where a root is no folder, the token is too short, or the address cannot be had.
        OutputError: where the results cannot be written, or another service has them.
        WsiPipelineError: where the worker cannot start: no such model or device.
    """
    options = replace(options, viewer=with_token(options.viewer))
    with listen(options.viewer.host, port) as listener, open_service(options) as service:
        address = address_of(options.viewer, listener.getsockname()[1])
        base, _, query = address.partition("?")
        announce(f"Service: {address}")
        announce(f"Interface: {base}openapi.json{'?' if query else ''}{query}")
        waiting = service.store.queued()
        if waiting:
            announce(f"{waiting:,} jobs of an earlier start go on.")
        announce(f"{RESEARCH_USE}. Ctrl-C stops it.")
        config = uvicorn.Config(
            create_app(service),
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            limit_concurrency=256,
            timeout_graceful_shutdown=3,
        )
        # uvicorn ends all it has begun, and raises the signal again.
        with suppress(KeyboardInterrupt):
            _Server(config, service.stopping).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Tells those who follow jobs, who would wait for ever, that it ends."""

    def __init__(self, config: uvicorn.Config, stopping: Event) -> None:
        super().__init__(config)
        self._stopping = stopping

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._stopping.set()
        super().handle_exit(sig, frame)
