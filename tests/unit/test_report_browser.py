"""The report as a page: readable colours; in a real browser no request, no stranger's script, keyboard and paper."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_samples import EVIL, MOVED, ONE, Page, certificate_for, compared, picture, small_model

from workbench.certificate import Gate
from workbench.report import render_report, write_report


def luminance(colour: str) -> float:
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


READ_ON = {
    "ink": "paper card tint no-tint",
    "soft": "paper card tint no-tint",
    "yes": "paper card yes-tint",
    "no": "paper card no-tint",
    "link": "paper",
}


def test_text_is_readable_in_both_themes() -> None:
    style = Page(render_report(certificate_for(small_model()), small_model())).inside["style"][0]
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#\w{6})", block))
        for block in re.findall(r":root \{(.*?)\n *\}", style, re.S)[:2]
    )
    assert light.keys() >= dark.keys() >= {"paper", "card", "ink", "soft", "yes", "no"}
    for theme in (light, {**light, **dark}):
        for front, backs in READ_ON.items():
            for back in backs.split():
                low, high = sorted(luminance(theme[name]) + 0.05 for name in (front, back))
                assert high / low >= 4.5, f"{front} on {back}: WCAG AA asks 4.5"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's chromium, driven by playwright."""
    program = shutil.which("chromium")
    if program is None:
        reason = "chromium is not installed"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=flags)
        yield chromium
        chromium.close()


def open_page(browser: Any, path: Path, **options: Any) -> tuple[Any, list[str], list[str]]:
    """The page, every address it asked for, and everything it complained about."""
    page = browser.new_page(**options)
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(path.as_uri())
    return page, asked, said


@pytest.fixture(scope="module")
def evil_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "evil.html"
    model = small_model((EVIL, "dog"))
    rows = tuple(compared(EVIL, ONE, MOVED, thresh) for thresh in (0.5, 0.25))
    certificate = replace(certificate_for(model, Gate(EVIL, False, 1.0, 2.0, EVIL), pictures=rows), source=EVIL)
    write_report(certificate, model, path, {EVIL: picture()})
    return path


@pytest.mark.browser
def test_no_request_no_complaint_no_stranger_s_script(browser: Any, evil_report: Path) -> None:
    page, asked, said = open_page(browser, evil_report)
    assert [address for address in asked if not address.startswith("data:")] == [evil_report.as_uri()]
    assert said == [], "the policy blocks nothing of the page's own"
    assert page.title().startswith("FAILED: </script>")
    assert page.evaluate("document.documentElement.lang") == "en"
    # The policy holds against a script that an escaping mistake would let in.
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=data:, onerror=\"document.title=1\">')")
    page.wait_for_timeout(200)
    assert page.title().startswith("FAILED")
    page.close()


@pytest.mark.browser
@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without"])
def test_the_switches_work_by_keyboard_without_a_script(browser: Any, evil_report: Path, scripts: bool) -> None:
    page, _, _ = open_page(browser, evil_report, java_script_enabled=scripts)

    def shown(selector: str) -> bool:
        return bool(page.locator(f"{selector}:visible").count())

    assert shown(".at-0 g.reference.twin rect") and shown(".at-0 g.candidate.twin rect")
    assert not shown(".at-1 g.reference") and not shown("div.at-1")
    page.locator(".see-both").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator(".see-reference").is_checked()
    assert shown(".at-0 g.reference.twin rect") and not shown(".at-0 g.candidate")
    page.keyboard.press("ArrowRight")
    assert not shown(".at-0 g.reference") and shown(".at-0 .label.candidate.twin text") and not shown(".arrows")
    page.keyboard.press("ArrowRight")
    assert shown(".at-0 .arrows path") and not shown(".at-0 g.candidate")
    page.locator(".pick-0").focus()
    page.keyboard.press("ArrowRight")
    assert shown("div.at-1") and not shown("div.at-0")
    page.close()


@pytest.mark.browser
def test_tables_sort_by_keyboard_numbers_as_numbers(browser: Any, evil_report: Path) -> None:
    page, _, _ = open_page(browser, evil_report)
    table = page.locator("#layers table")
    heading = table.locator("th", has_text="max|difference|")
    first = table.locator("tbody tr").first.locator("td").first
    assert first.inner_text() == "0"
    for order, layer in (("ascending", "0"), ("descending", "1")):
        heading.locator("button").focus()
        page.keyboard.press("Enter")
        assert heading.get_attribute("aria-sort") == order and first.inner_text() == layer
    table.locator("th", has_text="type").locator("button").click()
    assert heading.get_attribute("aria-sort") is None and first.inner_text() == "0"
    page.close()


@pytest.mark.browser
def test_dark_narrow_and_on_paper(browser: Any, evil_report: Path) -> None:
    page, _, _ = open_page(browser, evil_report, color_scheme="dark", viewport={"width": 360, "height": 700})
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 27)"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
        "only tables and the chart scroll sideways"
    )
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible() and not page.locator(".switches").first.is_visible()
    frames = page.evaluate("[...document.querySelectorAll('.frame')].every(f => f.scrollHeight <= f.clientHeight + 1)")
    assert frames, "no table is cut on paper"
    page.close()
