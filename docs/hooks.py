"""Pages of the documentation that are made from the program itself, while the site is built: they cannot grow stale."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wsi_pipeline.cli import _parser
from wsi_pipeline.config import RESEARCH_USE, Settings, options
from wsi_pipeline.models.bundle import CARD_FILE, SHIPPED
from wsi_pipeline.models.card import read_card
from wsi_pipeline.report.card import CardFacts, card_facts

ROOT = Path(__file__).parents[1]


def on_files(files: Any, config: Any) -> Any:
    """Called by mkdocs with the files it found: the made ones are added."""
    from mkdocs.structure.files import File

    pages = {
        "reference/cli.md": command_line(),
        "reference/settings.md": settings(),
        "models.md": model_cards(),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
    }
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def command_line() -> str:
    """Every command with its options, from the parser itself."""
    parser = _parser()
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    helps = {action.dest: action.help for action in commands._choices_actions}
    lines = ["# Command line", "", str(parser.description), "", "| command | what it does |", "|---|---|"]
    lines += [f"| [`{name}`](#{name}) | {_cell(helps.get(name))} |" for name in commands.choices]
    lines += ["", "```text", parser.epilog or "", "```", ""]
    for name, command in commands.choices.items():
        lines += [f"## {name}", "", str(command.description or helps.get(name) or ""), ""]
        lines += ["```text", command.format_usage().strip(), "```", ""]
        for group in command._action_groups:
            lines += _group(command, group)
        if command.epilog:
            lines += ["```text", command.epilog.strip(), "```", ""]
    return "\n".join(lines)


def _group(command: argparse.ArgumentParser, group: Any) -> Iterator[str]:
    rows = list(_rows(command, group._group_actions))
    if rows:
        title = {"positional arguments": "What it takes", "options": "Options"}.get(group.title, group.title)
        yield from (f"**{title}**" + (f": {group.description}" if group.description else ""), "")
        yield from ("| | |", "|---|---|", *rows, "")


def _rows(command: argparse.ArgumentParser, actions: list[Any]) -> Iterator[str]:
    formatter = command._get_formatter()
    for action in actions:
        if action.help is argparse.SUPPRESS or isinstance(action, argparse._HelpAction):
            continue
        value = formatter._format_args(action, action.dest.upper()) if action.nargs != 0 else ""
        names = ", ".join(f"`{f'{name} {value}'.strip()}`" for name in action.option_strings) or f"`{value}`"
        yield f"| {_cell(names)} | {_cell(formatter._expand_help(action) if action.help else '')} |"


def settings() -> str:
    """Every setting of a run, from the models that check them."""
    lines = [
        "# Settings",
        "",
        "Settings stand in a YAML file (`--config FILE`), on the command line under the same names with hyphens,",
        "and in `analyze(...)` with underscores. An unknown name is an error that says the nearest known one.",
        "",
    ]
    sections: dict[str | None, list[str]] = {}
    for name, (section, field) in options().items():
        row = f"| `{name}` | {_value(field.default)} | {_cell(field.description)} |"
        sections.setdefault(section, []).append(row)
    for section, rows in sections.items():
        owner = Settings.model_fields[section].annotation if section else None
        lines += [f"## {section or 'At the top'}", "", (owner.__doc__ or "").strip() if owner else "", ""]
        lines += ["| setting | default | meaning |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _value(default: object) -> str:
    return "" if default is None else f"`{str(default).lower() if isinstance(default, bool) else default}`"


def model_cards() -> str:
    """The cards of the shipped bundles."""
    lines = ["# Model cards", "", f"The models that come with the program. {RESEARCH_USE}, not for diagnosis.", ""]
    for file in sorted(SHIPPED.glob(f"*/{CARD_FILE}")):
        lines += _card(card_facts(read_card(file)))
    return "\n".join(lines)


def _card(card: CardFacts) -> Iterator[str]:
    yield from (f"## {card.name}", "", card.description, "")
    yield from ("| | |", "|---|---|", *(f"| {name} | {_cell(text)} |" for name, text in card.facts), "")
    for part in card.measured:
        yield from (
            f"### {part.title.capitalize()}",
            "",
            f"{part.count}. Intervals are 95 %, by bootstrap over cases.",
            "",
        )
        yield from ("| | value | 95 % interval |", "|---|---|---|")
        yield from (f"| {name} | {value} | {interval} |" for name, value, interval in part.figures)
        yield ""
    yield from (f"*{note}*\n" for note in card.notes)
    if card.limits:
        yield from ("### Limits", "", *(f"* {limit}" for limit in card.limits), "")


def _cell(text: object) -> str:
    """Text that does not break a table."""
    return " ".join(str(text or "").split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
