"""The version: pyproject.toml has it, and what is installed says it."""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
IN_PROJECT = re.search(r'(?m)^version = "(.*)"$', (ROOT / "pyproject.toml").read_text()).group(1)


def test_the_command_says_the_installed_version_before_torch_is_loaded():
    code = (
        "import sys; sys.argv = ['sb3-permakey', '--version']; import sb3_permakey_start; sb3_permakey_start.main(); "
        "assert 'torch' not in sys.modules"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert said == f"sb3-permakey {importlib.metadata.version('sb3-permakey')}\n"


def test_the_citation_has_the_version_of_the_project():
    assert f"\nversion: {IN_PROJECT}\n" in (ROOT / "CITATION.cff").read_text()


def test_no_module_has_a_version_of_its_own():
    sources = [*(ROOT / "sb3_permakey").rglob("*.py"), *(ROOT / "sb3_permakey_start").rglob("*.py")]
    assert [path for path in sources if IN_PROJECT in path.read_text() or "__version__ =" in path.read_text()] == []
