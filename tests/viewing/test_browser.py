"""The page in a browser without a window: `pytest -m browser`, which `make release-check` runs."""

import shutil

import pytest
from conftest import CATCHING

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from running_page import RunningPage

from sb3_permakey.commands.view import ViewConfig

pytestmark = pytest.mark.browser
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_MS = 60_000


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.skip(f"no browser here: none of {', '.join(BROWSERS)} is on the path (apt-get install chromium)")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, toys, checkpoint):
    """The page of the falling ball, opened with a small checkpoint; nothing but its own server can be reached."""
    running = RunningPage(ViewConfig(env=CATCHING, checkpoint=(str(checkpoint), str(checkpoint))))
    page = browser.new_page(viewport={"width": 1500, "height": 1100})
    page.set_default_timeout(PATIENCE_MS)
    page.asked_for, page.told = [], []
    page.on("request", lambda request: page.asked_for.append(request.url))
    page.on("console", lambda message: page.told.append(message.text))
    page.on("pageerror", lambda error: page.told.append(str(error)))
    page.route(lambda url: not url.startswith((running.address, "blob:", "data:")), lambda route: route.abort())
    page.goto(running.address)
    yield page
    page.close()
    running.close()
    elsewhere = [url for url in page.asked_for if not url.startswith((running.address, "blob:", "data:"))]
    assert elsewhere == []


def wait_for_caption(page, text: str) -> None:
    page.wait_for_function("text => document.getElementById('caption').textContent.startsWith(text)", arg=text)


def test_play_is_seen_stepped_steered_and_recorded(page):
    wait_for_caption(page, "episode 1, step 0, score 0")
    widths = "[...document.querySelectorAll('.look > img')].map((picture) => picture.naturalWidth)"
    assert page.evaluate(widths) == [504, 504]
    assert page.locator(".look h2").all_inner_texts() == ["square, peaks, K = 4", "square, pointnet, K = 4"]
    assert page.locator(".maps img").count() == 4

    page.get_by_role("button", name="Record").click()
    page.get_by_role("button", name="Step").click()
    wait_for_caption(page, "episode 1, step 1, score 0, action")
    page.get_by_label("who plays").select_option("keys")
    page.keyboard.press("2")
    wait_for_caption(page, "episode 1, step 2, score 0, action 2")
    page.get_by_role("button", name="Stop").click()
    page.wait_for_function("() => document.getElementById('recorded').textContent === '3 frames'")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save GIF").click()
    assert download.value.suggested_filename == "sb3-permakey.gif"
    assert download.value.path().read_bytes()[:6] == b"GIF89a"

    page.get_by_role("button", name="Play").click()
    wait_for_caption(page, "episode 2")
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Reset").click()
    wait_for_caption(page, "episode 1, step 0")

    before = page.locator(".look > img").first.get_attribute("src")
    page.get_by_label("windows").uncheck()
    page.wait_for_function("before => document.querySelector('.look > img').src !== before", arg=before)
    page.get_by_label("error maps").uncheck()
    page.wait_for_function("() => document.querySelectorAll('.maps').length === 0")
    assert page.told == []


def test_an_agents_values_and_where_it_looks(page, save_agent):
    from two_queries import TwoQueries

    wait_for_caption(page, "episode 1, step 0")
    agent = save_agent(policy_kwargs={"features_extractor_class": TwoQueries})
    page.locator(".side [name=num_keypoints]").first.fill("3")
    page.get_by_label("Beside it").uncheck()
    page.get_by_label("Agent", exact=True).fill(str(agent))
    page.get_by_role("button", name="Open").click()
    page.wait_for_selector("text=Where the agent looks")
    assert page.locator(".look").count() == 2
    assert page.locator(".values tr").count() == 3
    assert page.locator(".values tr.chosen").count() == 1
    assert page.locator(".attention td").all_inner_texts() == ["100", "0", "0", "33", "33", "33"]
    chosen = page.locator(".values tr.chosen td").first.inner_text()
    page.get_by_role("button", name="Step").click()
    wait_for_caption(page, f"episode 1, step 1, score 0, {chosen}")
    assert page.told == []


def test_what_is_wrong_is_told_in_a_sentence(page):
    wait_for_caption(page, "episode 1, step 0")
    page.get_by_label("Own environment").fill("catching:Nothing")
    page.get_by_role("button", name="Open").click()
    error = page.get_by_role("alert")
    error.wait_for()
    assert error.inner_text().startswith("the module catching has no function 'Nothing'")
    page.get_by_label("Own environment").fill(CATCHING)
    page.get_by_label("Agent", exact=True).fill("none.zip")
    page.get_by_role("button", name="Open").click()
    page.wait_for_function("() => document.getElementById('error').textContent === 'no saved agent at none.zip'")
    page.get_by_role("button", name="Step").click()  # of what was open before
    wait_for_caption(page, "episode 1, step 1")
    assert not error.is_visible()
