# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""The report in a browser, opened as the file that it is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from endofm_monai.apps.endofm.report import write_report
from endofm_monai.data import list_videos

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

FIRST = 9
FRAME = "video => Math.floor(video.currentTime * 10 + 1e-3)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(params=["embedded", "beside"])
def page(request, results, blob, browser, tmp_path, monkeypatch) -> Iterator[Any]:
    """The page of the video, which in the end must not have complained or asked for anything but files."""
    if request.param == "beside":
        monkeypatch.setattr("endofm_monai.apps.endofm.report.EMBEDDED", 100)
    folder = shutil.copytree(results, tmp_path / "results")
    report = write_report(folder, list_videos(blob))
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    said: list[str] = []
    asked: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda made: asked.append(made.url))
    opened.goto(report.as_uri())
    opened.wait_for_function("[...document.querySelectorAll('video')].every(video => video.readyState >= 2)")
    yield opened
    opened.close()
    assert said == []
    assert {urlsplit(url).scheme for url in asked} <= {"file", "data"}
    assert all(url.startswith(("data:", folder.as_uri())) for url in asked)


def shown(page: Any) -> Any:
    return page.locator("video:not([hidden])")


def wait_for_frame(page: Any, frame: int) -> None:
    page.wait_for_function(f"document.querySelector('output').textContent.startsWith('frame {frame} of 30')")
    assert shown(page).evaluate(FRAME) == frame


def test_the_video_plays(page):
    shown(page).evaluate("video => video.play()")
    page.wait_for_function("document.querySelector('video').currentTime > 0.3")
    assert shown(page).evaluate("video => [video.error, video.duration, video.videoWidth]") == [None, 3, 96]


def test_clicks_bring_the_video_to_their_frame(page):
    page.locator(".lane button.detection").click()
    wait_for_frame(page, FIRST)
    assert shown(page).evaluate("video => [video.id, video.paused]") == ["detection", True]
    page.locator(".lane button.segmentation").click()
    wait_for_frame(page, FIRST - 1)
    assert shown(page).get_attribute("id") == "segmentation"
    page.locator("td button", has_text="19").first.click()
    wait_for_frame(page, 19)
    page.locator("figure button").click()
    wait_for_frame(page, int(page.locator("figure button").get_attribute("data-frame")))
    page.locator("[data-step='1']").click()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    wait_for_frame(page, int(page.locator("figure button").get_attribute("data-frame")) - 1)


def test_the_timeline_is_clicked_on_where_nothing_was_found(page):
    lane = page.locator(".lane > div").first
    size = lane.bounding_box()
    lane.click(position={"x": size["width"] * 25.5 / 30, "y": size["height"] / 2})
    wait_for_frame(page, 25)
    heads = page.locator(".lane i").evaluate_all("heads => heads.map(head => parseFloat(head.style.left))")
    assert heads == pytest.approx([100 * 25 / 30] * 3, abs=1e-3)


def test_the_other_video_is_shown_at_the_same_frame(page):
    page.locator("td button", has_text="19").first.click()
    wait_for_frame(page, 19)
    page.locator("[data-show=segmentation]").click()
    assert shown(page).get_attribute("id") == "segmentation"
    wait_for_frame(page, 19)


def test_nothing_is_wider_than_the_window(page):
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
