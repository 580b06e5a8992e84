"""What the commands share: options made from the settings, exit statuses, the report of failed slides."""

import argparse
import sys
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from wsi_pipeline.config import Settings, load_settings, options

if TYPE_CHECKING:
    from wsi_pipeline.manifest import RunRecord

OK, SOME_FAILED, USAGE, INTERRUPTED, READER_GONE = 0, 1, 2, 130, 141


def add_settings(parser: argparse.ArgumentParser, sections: set[str | None] | None = None) -> None:
    """An option for each setting, of the same name."""
    groups: dict[str | None, Any] = {None: parser}
    for name, (section, setting) in options().items():
        if sections is not None and section not in sections:
            continue
        if section not in groups:
            owner = Settings.model_fields[section or ""].annotation
            groups[section] = parser.add_argument_group(section, (owner.__doc__ or "").strip() if owner else None)
        kind, choices = _kind(setting.annotation)
        text = setting.description or ""
        if setting.default is not None:
            default = {True: "yes", False: "no"}[setting.default] if kind is bool else setting.default
            text += f" (default: {default})"
        more: dict[str, Any] = {"action": argparse.BooleanOptionalAction} if kind is bool else {"type": kind}
        if choices:
            more["choices"] = choices
        elif kind is not bool:
            more["metavar"] = {float: "X", int: "N"}.get(kind, "TEXT")
        groups[section].add_argument(
            f"--{name.replace('_', '-')}", default=None, help=text.replace("%", "%%"), dest=f"setting_{name}", **more
        )


def natural(text: str) -> int:
    """Type of an option that counts something."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{number} is negative")
    return number


def fraction(text: str) -> float:
    """Type of an option that takes a share of something: above 0, at most 1."""
    number = float(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"{number:g} is no fraction: give more than 0 and at most 1")
    return number


def _kind(annotation: Any) -> tuple[type, tuple[str, ...] | None]:
    """Type and choices of a setting: of ``X | None`` the X, of a Literal its values."""
    if get_origin(annotation) in (Union, UnionType):
        return _kind(next(part for part in get_args(annotation) if part is not NoneType))
    if get_origin(annotation) is Literal:
        return str, get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        return _kind(annotation.__origin__)
    return annotation, None


def read_settings(args: argparse.Namespace) -> Settings:
    """The settings of a run: the file of --config, then the options given."""
    given = {name.removeprefix("setting_"): value for name, value in vars(args).items() if name.startswith("setting_")}
    return load_settings(args.config, given)


def report_failures(record: "RunRecord", *, debug: bool) -> int:
    """List the slides that failed, and say so in the status."""
    for result in record.failed:
        error = result.error or {}
        print(f"FAILED {result.slide}: {error['where']}: {error['why']}. {error['hint']}".rstrip(), file=sys.stderr)
        if debug:
            print(error.get("traceback", ""), file=sys.stderr)
    return SOME_FAILED if record.failed else OK
