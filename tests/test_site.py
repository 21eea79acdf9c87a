"""The site: links between files become links between pages, lists and equations are what code hosts make of them."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest
import yaml

from sb3_permakey import cli

pytest.importorskip("mkdocs")
pytest.importorskip("latex2mathml")
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs/site/hooks.py")
hooks = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(hooks)


@pytest.fixture
def config():
    config = MkDocsConfig()
    config.load_dict({"site_name": "test", "docs_dir": str(ROOT / "docs"), "use_directory_urls": False})
    config.validate()
    config.plugins._current_plugin = "site"  # as while MkDocs builds, when hooks make files
    return config


def page_of(config, source):
    """The page of one of the repository's files, among all of the site."""
    files = hooks.on_files(Files([guide(config, path) for path in sorted(ROOT.glob("docs/*.md"))]), config)
    return Page(None, files.get_file_from_path(config.extra["site_pages"][source]), config), files


def guide(config, path):
    return File(path.name, config.docs_dir, config.site_dir, use_directory_urls=False)


def test_links_lead_to_pages(config):
    page, files = page_of(config, "docs/guide.md")
    text = (
        "[a](../README.md#speed) [b](rainbow.md) [c](../benchmarks/results/encoders.md) [d](../examples/rl_zoo) "
        "[e](../sb3_permakey/keypoints/vae.py) [f](../benchmarks/results/demo.json) [g](#citation) [h](https://a.b/c.md)"
    )
    changed = hooks.on_page_markdown(text, page, config, files)
    assert re.findall(r"\]\((.*?)\)", changed) == [
        "index.md#speed",
        "rainbow.md",
        "benchmarks/results/encoders.md",
        "examples/rl_zoo/index.md",
        "source/sb3_permakey/keypoints/vae.py.md",
        "source/benchmarks/results/demo.json",
        "#citation",
        "https://a.b/c.md",
    ]


def test_a_link_to_what_the_site_lacks_is_told(config, caplog):
    page, files = page_of(config, "docs/guide.md")
    caplog.clear()
    hooks.on_page_markdown("[a](../tests/test_site.py)", page, config, files)
    assert caplog.messages == ["docs/guide.md links ../tests/test_site.py, which is not in the site"]


def test_links_of_a_report_start_at_its_folder(config):
    page, files = page_of(config, "benchmarks/results/memory.md")
    changed = hooks.on_page_markdown("![m](../../docs/memory.png) [r](../README.md)", page, config, files)
    assert changed == "![m](../../memory.png) [r](../index.md)"


def test_linked_files_have_pages(config):
    _, files = page_of(config, "README.md")
    assert "def kl_divergence" in files.get_file_from_path("source/sb3_permakey/keypoints/vae.py.md").content_string
    folder = files.get_file_from_path("source/benchmarks/memory/index.md").content_string
    assert "- `tasks.py`: " in folder


def test_a_link_that_leads_nowhere_is_told(monkeypatch, tmp_path, caplog):
    (tmp_path / "page.md").write_text("[a](gone.md) `[b](code.md)`\n```\n[c](fenced.md)\n```\n")
    monkeypatch.setattr(hooks, "ROOT", tmp_path)
    assert list(hooks.linked("page.md")) == []
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told[0] == "page.md links gone.md, which is not in the repository"
    assert not any("fenced" in message for message in told)


def test_a_list_needs_no_empty_line_before_it():
    assert hooks.lists_apart("Some:\n- one\n  more\n- two\nSome\n1. a\n2. b") == (
        "Some:\n\n- one\n  more\n- two\nSome\n\n1. a\n2. b"
    )


def test_equations_become_mathml():
    changed = hooks.on_page_content('<p><span class="arithmatex">\\(a &lt; b^2\\)</span></p>', None, None, None)
    assert changed.startswith("<p><math")
    assert 'display="inline"' in changed
    assert "<msup><mi>b</mi><mn>2</mn></msup>" in changed
    assert "arithmatex" not in changed


def test_an_equation_that_is_not_understood_is_told(caplog):
    hooks.on_page_content('<div class="arithmatex">\\[\\nosuchcommand x\\]</div>', None, None, None)
    assert "does not know all of" in caplog.text


def test_the_reference_has_every_public_name_and_command():
    pages = dict(hooks.api_pages())
    import sb3_permakey

    for name in sb3_permakey.__all__:
        assert f"::: sb3_permakey.{name}\n" in pages["api/sb3_permakey.md"]
    assert re.findall(r"(?m)^## (.*)$", pages["api/commands.md"]) == list(cli.COMMANDS)
    for kind, _ in cli.COMMANDS.values():
        assert f".{kind.__name__}\n" in pages["api/commands.md"]


def test_a_quiet_build_would_be_no_strict_one():
    target = re.search(r"(?m)^docs:.*\n\t(.*)$", (ROOT / "Makefile").read_text()).group(1)
    assert "mkdocs build" in target
    assert " -q " not in target.partition("#")[0]


def test_nothing_is_fetched_from_elsewhere():
    settings = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader=Tagless)
    assert settings["theme"]["font"] is False
    assert settings["extra"]["polyfills"] == ["assets/iframe-worker.js"]
    assert (ROOT / "docs/site/theme/assets/iframe-worker.js").exists()


class Tagless(yaml.SafeLoader):
    """Reads MkDocs's settings without what they ask of Python."""


Tagless.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


def constants():
    """The texts in the package's code, and the constant parts of those that are put together."""
    trees = [ast.parse(path.read_text()) for path in sorted(ROOT.glob("sb3_permakey/**/*.py"))]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_the_sentences_that_are_explained_are_those_of_the_code():
    items = re.findall(r"(?ms)^- (`.*?:) ", (ROOT / "docs/troubleshooting.md").read_text())
    assert len(items) > 20
    code = "\n".join(constants())
    quoted = [part for item in items for part in re.findall(r"`(.*?)`", " ".join(item.split()))]
    assert [part for part in quoted if part not in code] == []


@pytest.mark.parametrize("page", ["README.md", "docs/first_hour.md", "docs/keypoints.md", "docs/keypoints_as_data.md"])
def test_commands_can_be_typed(page):
    commands = re.findall(r"(?m)^sb3-permakey (.*)$", (ROOT / page).read_text())
    assert commands
    for command in commands:
        assert cli._parse(command.partition(" #")[0].split()), command


def test_the_contents_name_each_page_once():
    named = re.findall(r"(?m)^\s+- (?:.*: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text())
    assert len(named) > 10
    assert sorted(named) == sorted(set(named))
