"""docs/reference/cvmfs_server.md: the page is text about the tables, and the tables themselves.

`python -m outcrop.cli.dropin.reference` writes the tables of the page anew.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from outcrop.cli.dropin.options import Letter, Verb
from outcrop.cli.dropin.publish import VERBS as PUBLISH
from outcrop.cli.dropin.server_table import ALIASES
from outcrop.cli.dropin.server_table import VERBS as SERVER
from outcrop.cli.dropin.swissknife import TOOL as SWISSKNIFE

MARK = "<!-- What follows is made from the tables: python -m outcrop.cli.dropin.reference -->\n"
PAGE = Path("docs/reference/cvmfs_server.md")


def tables() -> str:
    """All commands with their options, as Markdown."""
    sections = {"cvmfs_server": SERVER, "cvmfs_swissknife": SWISSKNIFE.verbs}
    lines: list[str] = []
    for tool, verbs in sections.items():
        lines += ["", f"## {tool}", *_verbs(tool, verbs)]
    names = ", ".join(f"`{name}`" for name in PUBLISH)
    also = ", ".join(f"`{alias}` is `{name}`" for alias, name in ALIASES.items())
    lines += ["", "## Other names", "", f"Of `cvmfs_server`: {also}."]
    lines += ["", f"`cvmfs_publish` has {names}, with the options above; `commit` is `publish`."]
    return "\n".join(lines) + "\n"


def _verbs(tool: str, verbs: Mapping[str, Verb]) -> Iterator[str]:
    for name, verb in verbs.items():
        if verb.refused:
            continue
        yield from ("", f"### {tool} {name}", "", f"{verb.summary}.")
        if verb.letters:
            yield from ("", "| option | what it means | here |", "|---|---|---|")
            yield from (_row(verb, letter, found) for letter, found in verb.letters.items())
    yield from ("", f"### Not in {tool}", "", "| command | why |", "|---|---|")
    yield from (f"| `{name}` | {verb.refused} |" for name, verb in verbs.items() if verb.refused)


def _row(verb: Verb, letter: str, found: Letter) -> str:
    long = [f"--{name}" for name, short in verb.long.items() if short == letter]
    option = ", ".join([f"-{letter}", *long]) + (f" {found.argument}" if found.argument else "")
    here = f"no effect: {found.unused.rstrip('!')}" if found.unused else ""
    if found.to:
        here = f"`{found.to}`"
    return f"| `{option}` | {found.help} | {here} |"


def main() -> None:
    """Write the tables into the page, which must be there."""
    before, mark, _ = PAGE.read_text().partition(MARK)
    if not mark:
        raise SystemExit(f"{PAGE} has no mark")
    PAGE.write_text(before + MARK + tables())


if __name__ == "__main__":
    main()
