"""The documents say what the code does: commands, exit codes, parameters, links, claims."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from tests.cli.test_main import families

from outcrop.cli.exit_codes import MEANINGS
from outcrop.cli.main import SECTIONS
from outcrop.cli.reference import reference_page
from outcrop.client.settings import PARAMETERS

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md")
    for path in ROOT.glob(pattern)
    if "_build" not in path.parts
)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def test_the_page_of_commands_is_made_from_the_commands() -> None:
    assert text_of("docs/reference/commands.md") == reference_page(), "run: make docs-commands"


def test_the_readme_names_every_command_group_and_the_two_targets() -> None:
    readme = text_of("README.md")
    for name in (name for section in SECTIONS.values() for name in section):
        if name not in ("remount", "umount", "status", "completion"):
            assert re.search(rf"outcrop .*\b{name}\b", readme), name
    assert "make demo" in readme
    assert "make test" in readme


def test_every_exit_code_is_explained() -> None:
    explained = {int(code) for code in re.findall(r"^\| (\d+) \|", EXIT_CODES, re.MULTILINE)}
    assert explained == set(MEANINGS)


EXIT_CODES = text_of("docs/reference/exit-codes.md")


def test_the_example_error_of_the_page_is_one_there_is() -> None:
    kinds = set(re.findall(r'"kind": "(\w+)"', EXIT_CODES))
    assert kinds <= {family.__name__ for family in families()}


def test_every_parameter_is_described_once() -> None:
    described = re.findall(r"^\| `(CVMFS_\w+)` \|", text_of("docs/reference/parameters.md"), re.M)
    assert sorted(described) == sorted(PARAMETERS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    prose = _FENCE.sub("", page.read_text())
    for target in _LINK.findall(prose):
        path = target.partition("#")[0]
        if path and "://" not in target:
            assert (page.parent / path).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_documents_exist(page: Path) -> None:
    names = {name for section in SECTIONS.values() for name in section}
    shown = re.findall(r"^(?:\$ )?outcrop ([a-z][a-z-]*)\b", page.read_text(), re.MULTILINE)
    assert set(shown) <= names


def test_python_in_documents_compiles() -> None:
    for page in PAGES:
        for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S):
            compile(block.replace("…", "..."), str(page), "exec")


def test_files_name_no_machine_of_ours() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    unwanted = re.compile("/" + "work/|/" + "tmp/outcrop/")
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".c", ".h", ".yml", "") and path.is_file():
            assert not unwanted.search(path.read_text(errors="replace")), name


def test_the_version_is_said_once() -> None:
    import outcrop

    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    assert project["version"] == outcrop.__version__
    assert project["version"] in text_of("CHANGELOG.md")


def test_make_help_names_every_target() -> None:
    makefile = text_of("Makefile")
    targets = re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)
    for target in targets:
        if target != "help":
            assert f"make {target} " in makefile, target
