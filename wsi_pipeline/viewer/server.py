"""The viewer as a server on this machine."""

import os
import secrets
import socket
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread

import uvicorn

from wsi_pipeline.config import RESEARCH_USE
from wsi_pipeline.errors import ConfigError
from wsi_pipeline.viewer.app import create_app
from wsi_pipeline.viewer.options import ViewerOptions
from wsi_pipeline.viewer.results import Results
from wsi_pipeline.viewer.security import is_loopback

USUAL_PORT = 8765
"""Tried first, so that bookmarks hold; where it is taken, any free one."""

MIN_TOKEN = 16
"""Characters of a token that a user chooses."""


def serve(
    results: Path,
    options: ViewerOptions,
    *,
    port: int | None = None,
    open_browser: bool = True,
    announce: Callable[[str], None],
) -> None:
    """Serve the viewer until Ctrl-C or SIGTERM.

    Args:
        results: The folder of one run, of several runs, or of one slide's result.
        options: What may be shown, and to whom; an address beyond this machine gets a token where it has none.
        port: None for the usual one, or any free one.
        open_browser: Show the page once it is there.
        announce: Is told, line by line, where the page is.

    Raises:
        ConfigError: where there are no results, the token is too short, or the address cannot be had.
    """
    if not Results(results).runs():
        raise ConfigError(results, "holds no results", "Name the folder that was given to `run --out`.")
    options = with_token(options)
    app = create_app(results, options)
    with listen(options.host, port) as listener:
        address = address_of(options, listener.getsockname()[1])
        announce(f"Viewer: {address}")
        announce(f"{RESEARCH_USE}. Ctrl-C stops it.")
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            limit_concurrency=256,
            timeout_graceful_shutdown=3,
        )

        def on_start() -> None:
            Thread(target=app.state.viewer.warm_up, name="warm-up", daemon=True).start()
            if open_browser:
                _show(address)

        # uvicorn ends all it has begun, and raises the signal again.
        with suppress(KeyboardInterrupt):
            _Server(config, on_start).run(sockets=[listener])


def with_token(options: ViewerOptions) -> ViewerOptions:
    """The options with a token where the address can be reached by others.

    Raises:
        ConfigError: where the given token can be guessed.
    """
    if options.token is None:
        return options if is_loopback(options.host) else replace(options, token=secrets.token_urlsafe(32))
    if len(options.token) < MIN_TOKEN or not options.token.isascii() or not options.token.isprintable():
        raise ConfigError(
            "--token", f"is no text of at least {MIN_TOKEN} plain characters", "Leave it away to get one."
        )
    return options


def listen(host: str, port: int | None) -> socket.socket:
    """A socket that listens.

    Raises:
        ConfigError: where the address or the port cannot be had.
    """
    failed: Exception | None = None
    for number in (USUAL_PORT, 0) if port is None else (port,):
        try:
            family, *_, place = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
            return _listener(family, place)
        except (OSError, OverflowError) as error:
            failed = error
    hint = "Choose another port with --port, or leave it away." if port is not None else "Choose another --host."
    raise ConfigError(f"{host}:{port or USUAL_PORT}", f"cannot be listened on ({failed})", hint)


def _listener(family: int, place: object) -> socket.socket:
    # Only where the protocol is named does asyncio switch off Nagle's delay, which costs 40 ms for each tile.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # elsewhere this would let two programs have one port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)  # type: ignore[arg-type]
        listener.listen(128)
    except BaseException:
        listener.close()
        raise
    return listener


def address_of(options: ViewerOptions, port: int) -> str:
    """Where the page is, with its token."""
    host = options.host
    if host in {"0.0.0.0", "::", ""}:  # noqa: S104  (what a user asked for)
        host = socket.gethostname()
    if ":" in host:
        host = f"[{host.strip('[]')}]"
    return f"http://{host}:{port}/" + (f"?token={options.token}" if options.token else "")


def _show(address: str) -> None:
    # In a thread: some browsers keep their caller waiting.
    Thread(target=webbrowser.open, args=(address,), daemon=True).start()


class _Server(uvicorn.Server):
    """Says when it is ready."""

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_start()
