"""The README: its figures are those of the results files, its examples run, what it names is there."""

import json
import re
from pathlib import Path

import pytest
from conftest import MovingSquare

from benchmarks.atari100k.report import short_report
from benchmarks.harness.markdown_blocks import renewed
from benchmarks.harness.results import read_results as read_atari_results
from benchmarks.keypoints.report import read_results, readme_tables
from benchmarks.speed.report import readme_table

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_it_is_short():
    assert len(README.splitlines()) <= 120


def test_scores_of_agents():
    results = read_atari_results(RESULTS / "atari100k")
    assert renewed(ROOT / "README.md", atari100k=short_report(results)) == README


def test_scores_of_keypoints():
    assert renewed(ROOT / "README.md", **readme_tables(read_results(RESULTS / "keypoints"))) == README


def test_speed():
    throughput = json.loads((RESULTS / "throughput.json").read_text())
    assert renewed(ROOT / "README.md", speed="\n".join(readme_table(throughput))) == README


def test_the_example_of_keypoints():
    example = EXAMPLES[0].replace("100_000, progress_bar=True", "20")
    assert example != EXAMPLES[0]
    names = {}
    exec(example, names)
    assert names["model"].num_timesteps == 20
    assert set(names["env"].observation_space.spaces) == {"keypoints", "features", "confidence", "motion"}


@pytest.mark.filterwarnings("ignore:RecurrentDQN learns nothing")
def test_the_example_without_keypoints():
    example = EXAMPLES[1].replace("50_000", "20")
    assert example != EXAMPLES[1]
    names = {}
    exec(example, names)
    assert names["model"].num_timesteps == 20


def test_the_example_of_an_own_environment(tmp_path, checkpoint, monkeypatch):
    wanted = []
    monkeypatch.setattr("sb3_permakey.pretraining.pretrain", lambda config: wanted.append(config) or checkpoint)
    monkeypatch.chdir(tmp_path)
    names = {"make_env": lambda: MovingSquare(20)}
    example = re.search(r"```python\n(.*?)```", (ROOT / "docs/own_environment.md").read_text(), re.DOTALL).group(1)
    exec(example.replace("frames=4_000", "frames=100"), names)
    assert "confidence" in names["env"].observation_space.spaces
    assert names["model"].observation_space == names["env"].observation_space
    assert wanted[0].schedule == "staged"
    assert (tmp_path / "frames").is_dir()


def test_commands_and_files_that_are_named_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "docs", "test"):
        assert f"make {target}" in README
        assert f"\n{target}:" in makefile


GUIDES = [f"docs/{path.name}" for path in sorted(ROOT.glob("docs/*.md"))]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "benchmarks/README.md", *GUIDES])
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text()
    linked = re.findall(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)", text)
    assert linked or page in GUIDES
    for path, heading in linked:
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), path
        if heading and target.suffix == ".md":
            assert heading in headings(target.read_text()), (path, heading)


def headings(text: str) -> set[str]:
    """Addresses of a page's headings, as GitHub makes them."""
    titles = re.findall(r"(?m)^#+ (.*)$", text)
    return {"#" + re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
