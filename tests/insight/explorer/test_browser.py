"""The page in headless Chromium, as somebody uses it: by mouse, by keyboard, by its links."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.insight.conftest import with_catalog
from tests.scripts import load_script

from pressmark.insight.doctor import Patient, diagnose
from pressmark.insight.explain import LabelledRun, label_run
from pressmark.insight.explorer import content as module
from pressmark.insight.explorer.flags import Flag
from pressmark.insight.explorer.page import Page, render

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
FLAGS = load_script("bench_explorer").FLAGS
EVIL = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'> Evil Cr\u00e8me"


@dataclass
class Visit:
    """A page and what it did behind our back."""

    page: Any
    labelled: LabelledRun
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def texts(self, selector: str) -> list[str]:
        return self.page.locator(selector).all_inner_texts()

    def until(self, read: Callable[[], Any], wanted: Any) -> None:
        """Waits until the page is so: it follows its address, which changes after the click returns."""
        for _ in range(500):
            if (seen := read()) == wanted:
                return
            self.page.wait_for_timeout(20)
        assert seen == wanted

    def sees(self, selector: str, wanted: list[str]) -> None:
        self.until(lambda: self.texts(selector), wanted)

    def says(self, script: str, wanted: Any = True) -> None:
        self.until(lambda: self.page.evaluate(script), wanted)


@pytest.fixture(scope="module")
def labelled(patient: Patient) -> LabelledRun:
    title = patient.catalog.title.copy()
    title[0] = EVIL
    return label_run("r", with_catalog(patient, title=title))


@pytest.fixture(scope="module")
def address(labelled: LabelledRun, tmp_path_factory: pytest.TempPathFactory) -> str:
    ids = labelled.patient.catalog.item_id
    flags = [Flag(str(ids[0]), EVIL, 0.5, 0.25), Flag(str(ids[9]), "Dairy > Milk", 0.9, 1.0)]
    with pytest.MonkeyPatch.context() as patch:
        place = module.place_items
        patch.setattr(module, "place_items", lambda vectors, seed: place(vectors, seed, 40))
        shown = module.content(labelled, flags)
    path = tmp_path_factory.mktemp("page") / "explorer.html"
    path.write_text(render(Page("Tiny store", shown, diagnose("r", labelled.patient))), "utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Any, address: str, labelled: LabelledRun) -> Iterator[Visit]:
    page = browser.new_page(viewport={"width": 1400, "height": 800})
    one = Visit(page, labelled)
    page.on("pageerror", lambda error: one.errors.append(str(error)))
    page.on("console", lambda message: one.errors.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: one.requests.append(request.url))
    page.goto(address)
    page.wait_for_selector("body[data-ready]", timeout=60_000)
    yield one
    assert one.errors == []
    assert one.requests == [address]  # nothing was asked of anybody
    assert page.evaluate("window.hacked") is None
    page.close()


def test_opens_with_every_product_and_shelf(visit: Visit) -> None:
    prefixes = visit.labelled.prefixes
    visit.sees("#count", ["240 products"])
    largest = int(prefixes.num_items[prefixes.length == 1].max())
    visit.sees("#tree > li:first-child .num", [str(largest)])
    firsts = visit.texts("#tree > li[data-prefix] > .node .mono")
    alone = visit.texts("#tree > li[data-item]")
    assert len(firsts) + len(alone) == (prefixes.length == 1).sum()
    # Few rows are in the page, however many there are to show.
    assert 10 < visit.page.locator(".row").count() < 60
    visit.page.locator("#table").evaluate("(one) => { one.scrollTop = one.scrollHeight; }")
    visit.page.wait_for_selector('.row[data-at="239"]')


def test_a_shelf_opens_and_fills_the_table(visit: Visit) -> None:
    page, prefixes = visit.page, visit.labelled.prefixes
    page.click("#tree > li:first-child > .node .name")
    item = page.locator("#tree > li:first-child")
    for state in ("aria-expanded", "aria-selected"):
        visit.until(lambda state=state: item.get_attribute(state), "true")
    visit.says("location.hash.startsWith('#prefix=')")
    codes = page.evaluate("location.hash").removeprefix("#prefix=")
    prefix = prefixes.find([int(codes)])
    visit.sees("#count", [f"{prefixes.num_items[prefix]} products of 240"])
    assert item.locator("> ul > li").count() > 1
    visit.sees("#details h3", [visit.labelled.label_of(prefix)])
    page.click(".chip button")
    visit.sees("#count", ["240 products"])


def test_search_finds_what_a_plain_look_finds(visit: Visit) -> None:
    page, catalog = visit.page, visit.labelled.patient.catalog
    page.keyboard.press("/")
    visit.says("document.activeElement.id", "search")
    word = str(catalog.title[5]).split()[0].lower()
    page.keyboard.type(word)
    fits = [
        " ".join([title, brand, item_id, *(paths[0] if paths else ())]).lower()
        for title, brand, item_id, paths in zip(
            catalog.title, catalog.brand, catalog.item_id, catalog.category, strict=True
        )
    ]
    expected = sum(word in one for one in fits)
    visit.sees("#count", [f"{expected} product{'' if expected == 1 else 's'} of 240"])
    counts = [
        int(one.split(" of ")[0]) for one in visit.texts("#tree > li[data-prefix]:not(.none) > .node > .num")
    ]
    assert 0 < sum(counts) <= expected
    page.fill("#search", "creme evil")  # accents do not count, nor does the order
    visit.sees("#count", ["1 product of 240"])
    page.fill("#search", "no such thing anywhere")
    visit.says("document.getElementById('rows').innerText.includes('No product fits')")
    page.keyboard.press("Escape")
    visit.sees("#count", ["240 products"])


def test_links_lead_to_products_and_back(visit: Visit) -> None:
    page, labelled = visit.page, visit.labelled
    page.click(".row[data-at='0'] .title")
    first = labelled.patient.catalog.title[labelled.prefixes.order[0]]
    visit.sees("#details h3", [first])
    link = page.locator("#details .list a").first
    other = link.inner_text()
    link.click()
    visit.sees("#details h3", [other])
    page.go_back()
    visit.sees("#details h3", [first])
    page.locator("#details .path a.code").first.click()
    visit.says("location.hash.startsWith('#prefix=')")


def test_an_address_opens_what_it_names(visit: Visit, address: str) -> None:
    page, labelled = visit.page, visit.labelled
    # The deepest prefix of several products: the tree opens all the way down to it.
    prefixes = labelled.prefixes
    several = np.flatnonzero((prefixes.num_items > 1) & (prefixes.length == 2))
    codes = "_".join(map(str, prefixes.codes(int(several[-1]))))
    page.evaluate("(hash) => { location.hash = hash; }", f"#prefix={codes}")
    page.wait_for_selector('#tree li[aria-level="2"][aria-selected="true"]')
    for odd in ("#prefix=99_99", "#item=nobody", "#tab=none", "#%E0%A4%A"):
        page.evaluate("(hash) => { location.hash = hash; }", odd)
    assert page.locator('#tree li[aria-level="2"][aria-selected="true"]').count() == 1


def press(visit: Visit, key: str, then: str) -> None:
    """Presses a key and waits until what has the focus is so."""
    visit.page.keyboard.press(key)
    visit.says(f"document.activeElement.{then}")


def test_the_tree_and_the_table_by_keyboard(visit: Visit) -> None:
    page = visit.page
    page.locator("#tree > li").first.focus()
    press(visit, "ArrowRight", "getAttribute('aria-expanded') === 'true'")
    press(visit, "ArrowRight", "getAttribute('aria-level') === '2'")
    press(visit, "ArrowLeft", "getAttribute('aria-level') === '1'")
    press(visit, "ArrowLeft", "getAttribute('aria-expanded') === 'false'")
    first = page.evaluate("document.activeElement.textContent")
    press(visit, "ArrowDown", f"textContent !== {json.dumps(first)}")
    press(visit, "Enter", "getAttribute('aria-selected') === 'true'")
    assert page.evaluate("getComputedStyle(document.activeElement.firstElementChild).outlineStyle") == "solid"
    page.keyboard.press("Escape")
    page.focus("#table")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector('#table[aria-activedescendant="row-2"]')
    visit.sees("#details h3", [page.locator("#row-2 .title").evaluate("(one) => one.firstChild.textContent")])
    page.keyboard.press("End")
    page.wait_for_selector("#row-239.active")


TAB_STOP = "[...document.querySelectorAll('#tree li')].filter((one) => one.tabIndex === 0)"


def test_a_search_leaves_the_tree_in_reach_of_tab(visit: Visit) -> None:
    page = visit.page
    page.locator("#tree > li").first.focus()
    last = page.locator("#tree > li[data-prefix]").last.get_attribute("data-prefix")
    word = page.evaluate(f"titleOf(store.prefixes.start[{last}]).split(' ')[0]")
    for query in (word, "creme evil", word):
        page.fill("#search", query)
        visit.says(f"{TAB_STOP}.length", 1)
        visit.says(f"{TAB_STOP}[0].offsetParent !== null")
        visit.says("document.activeElement.id", "search")  # nobody took it away


def test_more_of_a_shelf_keeps_the_focus(browser: Any, address: str, tmp_path: Path) -> None:
    html = Path(address.removeprefix("file://")).read_text("utf-8")
    assert "const CHUNK = 200" in html
    (tmp_path / "few.html").write_text(html.replace("const CHUNK = 200", "const CHUNK = 3"), "utf-8")
    page = browser.new_page()
    page.goto((tmp_path / "few.html").as_uri())
    page.wait_for_selector("body[data-ready]")
    for shown in (3, 6):
        page.locator("#tree > li").nth(shown).focus()
        page.evaluate(f"focusOn(document.querySelectorAll('#tree > li')[{shown}])")
        page.keyboard.press("Enter")
        focused = "[...document.querySelectorAll('#tree > li')].indexOf(document.activeElement)"
        page.wait_for_function(f"document.querySelectorAll('#tree > li').length > {shown + 1}")
        assert page.evaluate(focused) == shown
        assert page.evaluate(f"{TAB_STOP}.length") == 1
    page.close()


def test_back_and_links_are_of_one_shelf(visit: Visit) -> None:
    page = visit.page
    page.click("#tab-map")
    visit.until(lambda: page.locator("#products").is_hidden(), True)
    page.go_back()
    visit.until(lambda: page.locator("#products").is_visible(), True)
    page.click("#tree > li:first-child > .node .name")
    visit.says("state.prefix >= 0")
    page.click(".row[data-at] .title")
    visit.says("location.hash.includes('&shelf=')")
    visit.says("state.prefix >= 0")
    page.locator("#details .list a").first.click()
    visit.says("state.prefix", -1)
    visit.sees("#count", ["240 products"])
    page.go_back()
    visit.says("state.prefix >= 0")
    visit.until(lambda: page.locator(".chip").count(), 1)


def test_sorting(visit: Visit) -> None:
    visit.page.click('[data-column="title"] button')

    def ordered() -> bool:
        shown = visit.page.locator(".row .title").evaluate_all(
            "(all) => all.map((one) => one.firstChild.textContent.toLowerCase())"
        )
        return len(shown) > 5 and shown[1:] == sorted(shown[1:])

    visit.until(ordered, True)
    visit.page.click('[data-column="flags"] button')
    surest = str(visit.labelled.patient.catalog.title[9])
    visit.until(lambda: visit.texts("#row-0 .title")[0].startswith(surest), True)
    visit.sees("#row-0 .flags", ["doubtful category"])


def test_flags_and_new_products(visit: Visit) -> None:
    page = visit.page
    page.check("#only-flagged")
    visit.sees("#count", ["2 products of 240"])
    page.uncheck("#only-flagged")
    page.check("#only-cold")
    visit.sees("#count", [f"{int(visit.labelled.patient.split.cold.sum())} products of 240"])
    page.uncheck("#only-cold")
    page.fill("#search", "evil")
    page.click(".row .title")
    visit.sees("#details h3", [EVIL])
    note = visit.texts(".note")[0]
    assert EVIL in note
    assert "severity 0.25, confidence 50%" in note


def test_map_and_verdicts(visit: Visit) -> None:
    page = visit.page
    page.click("#tab-map")
    visit.sees("#map-count", ["40 of 240 products, near ones alike"])
    pixels = "one.getContext('2d').getImageData(0, 0, one.width, one.height).data"
    assert page.locator("#canvas").evaluate(f"(one) => [...{pixels}].filter(Boolean).length") > 1000
    spot = page.evaluate("placeOf(0, byId('canvas').getBoundingClientRect())")
    page.locator("#canvas").click(position={"x": spot[0], "y": spot[1]})
    visit.says("location.hash.startsWith('#item=')")
    page.focus("#tab-map")
    page.keyboard.press("ArrowRight")
    visit.until(lambda: page.locator("#quality .verdict").count() > 15, True)
    visit.until(lambda: page.locator("#products").is_hidden(), True)


def test_names_and_roles(visit: Visit) -> None:
    page = visit.page
    tree = page.get_by_role("tree", name="Prefixes of the SIDs, coarse to fine")
    assert tree.get_by_role("treeitem").count() > 5
    assert page.get_by_role("grid", name="Products").get_attribute("aria-rowcount") == "241"
    assert page.get_by_role("searchbox").count() == 1
    assert page.get_by_role("tab", selected=True).inner_text() == "Products"
