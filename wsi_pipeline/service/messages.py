"""What the server and its worker say to each other: JSON, one message a line."""

import json
from base64 import b64decode, b64encode
from typing import Any, BinaryIO

from wsi_pipeline import errors
from wsi_pipeline.errors import WsiPipelineError

Message = dict[str, Any]


def write_message(stream: BinaryIO, message: Message) -> None:
    """Send a message whole.

    Raises:
        OSError: where nobody listens.
    """
    stream.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")
    stream.flush()


def read_message(stream: BinaryIO) -> Message | None:
    """The next message; None where the other side is gone."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    message: Message = json.loads(line)
    return message


def pack(data: bytes) -> str:
    """Bytes as a text."""
    return b64encode(data).decode()


def unpack(text: str) -> bytes:
    """The bytes again."""
    return b64decode(text)


def error_of(told: dict[str, str]) -> WsiPipelineError:
    """An error as `manifest.describe_error` told it, of its own class where that is one of ours."""
    kind = getattr(errors, told.get("type", ""), WsiPipelineError)
    known = isinstance(kind, type) and issubclass(kind, WsiPipelineError)
    chosen: type[WsiPipelineError] = kind if known else WsiPipelineError
    return chosen(told.get("where", ""), told.get("why", ""), told.get("hint", ""))
