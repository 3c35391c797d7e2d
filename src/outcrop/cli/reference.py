"""The reference page of all commands, made from the commands themselves.

`make docs-commands` writes docs/reference/commands.md with it.
"""

import inspect
import sys
from collections.abc import Iterator

import click

from outcrop.cli.command import Command
from outcrop.cli.exit_codes import MEANINGS
from outcrop.cli.main import SECTIONS, cli

_HEADING = """\
# Commands

<!-- Made by `make docs-commands` from the commands themselves; a test compares. -->

`TARGET` is a repository: a URL that ends with its name, its name (stored below `$OUTCROP_ROOT`, or
configured there by `CVMFS_SERVER_URL`), or the directory it is stored in. Paths inside a repository
count from its root, with a leading `/` or without.

Every command takes `--json` (the result, and an error too, as one JSON document),
`--log-level debug|info|warning|error` and `--json-log` (what is logged goes to stderr). Exit codes
are explained [on their own page](exit-codes.md).
"""

_SHARED = {"--json", "--log-level", "--json-log"}


def reference_page() -> str:
    """The whole page."""
    parts = [_HEADING]
    context = click.Context(cli, info_name="outcrop")
    for title, section in SECTIONS.items():
        parts.append(f"## {title}\n")
        for name in section:
            command = cli.get_command(context, name)
            if isinstance(command, Command):
                parts.extend(_command(name, command))
    return "\n".join(parts)


def _command(name: str, command: Command) -> Iterator[str]:
    yield f"### `outcrop {name}`\n"
    arguments = [one for one in command.params if isinstance(one, click.Argument)]
    shown = [one.metavar or _optional(one) for one in arguments]
    yield f"```\noutcrop {name} [OPTIONS] {' '.join(shown)}".rstrip() + "\n```\n"
    yield inspect.cleandoc(command.help or "") + "\n"
    rows = [
        f"| `{_names(option)}` | {_about(option)} |"
        for option in command.params
        if isinstance(option, click.Option) and not _SHARED & set(option.opts)
    ]
    if rows:
        yield "\n".join(["| option | |", "|---|---|", *rows]) + "\n"
    yield f"```\n{command.examples}\n```\n"
    codes = [f"{code} ({MEANINGS[code]})" for code in command.exits]
    yield f"Exit codes: {', '.join(codes)}.\n"


def _optional(argument: click.Argument) -> str:
    name = (argument.name or "").upper()
    return name if argument.required else f"[{name}]"


def _names(option: click.Option) -> str:
    names = ", ".join([*option.opts, *option.secondary_opts])
    if option.is_flag:
        return names
    if option.metavar:
        return f"{names} {option.metavar}"
    if isinstance(option.type, click.Choice):
        return f"{names} {'|'.join(map(str, option.type.choices))}"
    return f"{names} N"


def _about(option: click.Option) -> str:
    text = (option.help or "").replace("|", "\\|")
    if option.show_default is True and not option.is_flag:
        text = f"{text} Default: `{option.default}`.".strip()
    return text


def main() -> None:
    """Print the page."""
    sys.stdout.write(reference_page())


if __name__ == "__main__":
    main()
