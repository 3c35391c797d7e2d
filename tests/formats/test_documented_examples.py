"""The examples of docs/reference/formats are executed, and no page goes missing."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted((ROOT / "docs/reference/formats").glob("*.md"))
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [p for p in PAGES if p.stem != "index"], ids=lambda p: p.stem)
def test_the_example_of_a_page_holds(page):
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    assert blocks, "a page has an example"
    names = {}
    for block in blocks:
        exec(compile(block, str(page), "exec"), names)  # the page is ours


def test_the_index_lists_every_page():
    index = (ROOT / "docs/reference/formats/index.md").read_text(encoding="utf-8")
    (listing,) = re.findall(r"^```\{toctree\}\n(.*?)^```$", index, re.MULTILINE | re.DOTALL)
    listed = [line for line in listing.splitlines() if line and not line.startswith(":")]
    assert sorted(listed) == [page.stem for page in PAGES if page.stem != "index"]


def test_every_page_the_source_cites_is_there():
    cited = {
        name
        for source in (ROOT / "src").rglob("*.py")
        for name in re.findall(r"docs/reference/formats/([\w-]+)\.md", source.read_text("utf-8"))
    }
    assert len(cited) > 10
    assert cited <= {page.stem for page in PAGES}
