"""The page as people see it: on a phone, at night, with the keyboard alone; in a real browser."""

from collections.abc import Iterator
from typing import Any

import pytest
from chromium import PROGRAM, Chromium, chromium
from reports import a_phase, report_of, saying

from jail.report.page import render_page
from jail.watch.events import NotRun, Omission, Outcome, PhaseName

pytestmark = pytest.mark.skipif(not PROGRAM, reason="there is no Chromium here")

PHONE, SMALL, DESK = 390, 320, 1280  # pixels
LEAST_CONTRAST, LEAST_PIXELS = 4.5, 12.0  # WCAG 2.2, 1.4.3, level AA; what a phone can show

# Of every element with a text of its own that is shown: its words, how large they are, and how well
# they can be told from what is behind them.
TEXTS = """
(() => {
  const light = (c) => { c /= 255; return c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4 };
  const parts = (c) => (c.match(/[0-9.]+/g) || []).map(Number);
  const luminance = ([r, g, b]) => .2126 * light(r) + .7152 * light(g) + .0722 * light(b);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = parts(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    const box = e.getBoundingClientRect();
    if (!own || !box.width || !box.height) continue;
    const style = getComputedStyle(e);
    const colour = parts(e instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [luminance(colour), luminance(behind(e))].sort((x, y) => y - x);
    const scale = e instanceof SVGElement ? e.getScreenCTM().a : 1;
    found.push([e.textContent.slice(0, 40), parseFloat(style.fontSize) * scale,
      (a + .05) / (b + .05)]);
  }
  return found;
})()
"""
OPEN_ALL = "document.querySelectorAll('details').forEach((d) => { d.open = true })"
WIDEST = "document.documentElement.scrollWidth"
FOCUSED = """(() => { const e = document.activeElement, s = getComputedStyle(e);
  return [e.tagName, s.outlineStyle, parseFloat(s.outlineWidth), e.parentElement.open === true]
})()"""


def a_page(said: str = "word") -> bytes:
    return render_page(saying(said, 20))


def a_green_page() -> bytes:
    return render_page(report_of())


def an_unseen_page() -> bytes:
    left_out = [NotRun(PhaseName.IMPORT, "x", Omission.OUT_OF_TIME, "the time was over")]
    phases = [a_phase(), a_phase(PhaseName.IMPORT, "x", Outcome.TIMEOUT)]
    return render_page(report_of(phases=phases, not_run=left_out))


PAGES = {
    "everything": a_page,
    "long words": lambda: a_page("W" * 400),
    "clean": a_green_page,
    "unseen": an_unseen_page,
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with chromium() as found:
        yield found


@pytest.mark.parametrize("width", [PHONE, SMALL, DESK])
@pytest.mark.parametrize("kind", PAGES)
def test_nothing_is_wider_than_the_screen(browser: Chromium, kind: str, width: int) -> None:
    browser.show(PAGES[kind](), width)
    assert browser.evaluate(WIDEST) <= width
    browser.evaluate(OPEN_ALL)
    assert browser.evaluate(WIDEST) <= width


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("kind", PAGES)
def test_every_text_can_be_read(browser: Chromium, kind: str, dark: bool) -> None:
    browser.show(PAGES[kind](), PHONE, dark=dark).evaluate(OPEN_ALL)
    texts: list[list[Any]] = browser.evaluate(TEXTS)
    assert len(texts) > 10
    assert [text for text in texts if text[1] < LEAST_PIXELS] == []
    assert [text for text in texts if text[2] < LEAST_CONTRAST] == []


def test_it_is_dark_where_people_want_that(browser: Chromium) -> None:
    colour = "getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)"
    assert min(browser.show(a_green_page(), PHONE).evaluate(colour)) > 200
    assert max(browser.show(a_green_page(), PHONE, dark=True).evaluate(colour)) < 50


def test_the_verdict_is_on_the_first_screen(browser: Chromium) -> None:
    browser.show(a_page(), PHONE)
    bottom = "document.querySelector('header').getBoundingClientRect().bottom"
    assert browser.evaluate(bottom) < 400
    assert browser.picture().startswith(b"\x89PNG")


def test_what_is_folded_away_opens_with_the_keyboard(browser: Chromium) -> None:
    browser.show(a_page(), PHONE)
    browser.press("Tab")
    name, style, outline, is_open = browser.evaluate(FOCUSED)
    assert (name, style, is_open) == ("SUMMARY", "solid", False) and outline >= 2
    browser.press("Enter")
    assert browser.evaluate(FOCUSED)[-1] is True
    # All that can be scrolled can be reached, too.
    folded = browser.evaluate("document.querySelectorAll('pre:not([tabindex=\"0\"])').length")
    assert folded == 0
