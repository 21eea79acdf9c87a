"""The site as files in a browser without a window and without a network: search and equations are there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs")

pytestmark = pytest.mark.browser
ROOT = Path(__file__).parents[1]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ALONE = ("--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if BROWSER is None:
        pytest.skip("no browser here (apt-get install chromium)")
    place = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--no-strict", "--site-dir", str(place)]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, check=True, capture_output=True)
    return place


def shown(site, page):
    """What a page has become after its scripts have run."""
    address = f"{site.as_uri()}/{page}"
    command = [BROWSER, *ALONE, "--virtual-time-budget=10000", "--dump-dom", address]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def test_a_page_that_is_opened_as_a_file_is_searched(site):
    text = shown(site, "index.html?q=tracking")
    assert "matching documents" in text
    assert "keypoints.html" in text.partition("md-search-result__list")[2]


def test_equations_are_shown(site):
    text = shown(site, "how_it_works.html")
    assert text.count('<div class="equation"><math') > 6
    assert "arithmatex" not in text
