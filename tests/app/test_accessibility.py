"""axe-core on the page: no serious finding in either tab and theme; `make test-browser` runs this."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.annotate.samples import write_folder
from tests.app.browser import browser, visit
from tests.app.conftest import new_pool

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address(adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from tests.app.visitor import free_port
    from ttd.annotate.annotation_set import AnnotationSet
    from ttd.app.access import Access
    from ttd.app.server import page

    folder, pool = tmp_path_factory.mktemp("annotated"), new_pool(adapter)
    loaded = pool.get("mini", "")
    data, out = str(write_folder(folder / "data")), str(folder / "set")
    annotations = AnnotationSet.from_data(loaded.ttd, data, out, model_lock=loaded.lock)
    with page(pool, Access("127.0.0.1", free_port()), annotations) as where:
        yield where


def test_no_serious_finding(address: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    found = {}
    with browser() as opened:
        for theme in ("light", "dark"):
            page = visit(opened, f"{address}?__theme={theme}").page
            page.locator(".ann-stage").wait_for()
            for tab in ("Annotate", "Explore"):
                page.get_by_role("tab", name=tab).click()
                if tab == "Explore":
                    page.locator("#ttd-maps img").first.wait_for()
                    page.locator("#ttd-settings button").first.click()
                for one in Axe().run(page).response["violations"]:
                    if one["impact"] in ("serious", "critical"):
                        nodes = [node["html"][:200] for node in one["nodes"]]
                        found[theme, tab, one["id"]] = nodes
            page.close()
    assert found == {}
