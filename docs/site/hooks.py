"""What MkDocs does not do by itself, so that the repository's Markdown is the site as it stands.

The README is the first page; pages beside docs/ join it, each file that a page links has a page of its own, and links
between files become links between pages. Equations become MathML, lists begin where code hosts let them begin, and
API pages are made of what packages export. Whatever leads nowhere is a warning, which `make docs` takes for an error.
"""

from __future__ import annotations

import ast
import html
import json
import logging
import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

log = logging.getLogger("mkdocs.hooks.site")

ROOT = Path(__file__).parents[2]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
    "benchmarks/README.md": "benchmarks/index.md",
    "examples/rl_zoo/README.md": "examples/rl_zoo/index.md",
}
"""Markdown files beside docs/ and the pages that they are; benchmarks' reports join them under their own paths."""
LANGUAGES = {".py": "python", ".toml": "toml", ".yml": "yaml"}
"""Files that are shown on a page when one links them; others are copied."""
API = {
    "sb3_permakey": "The package",
    "sb3_permakey.keypoints": "Keypoints",
    "sb3_permakey.encoders": "Encoders",
    "sb3_permakey.common.memory": "Memories",
    "sb3_permakey.common.value_heads": "Value heads",
    "sb3_permakey.common.presets": "Presets",
    "sb3_permakey.pretraining": "Pretraining",
    "sb3_permakey.frames.store": "Recorded frames, stored",
    "sb3_permakey.frames.reader": "Recorded frames, read",
    "sb3_permakey.play.saved_agents": "Saved agents",
    "sb3_permakey.scores": "Scores",
}
"""Modules with an API page, and its title."""
LINK = re.compile(r"(?<=\]\()(?![a-z]+:)([^)\s#]*)(#[^)\s]*)?(?=\))")
LIST_ITEM = re.compile(r"(- |1\. )")
EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The contents have every report, and each guide that mkdocs.yml does not name at the end of the guides."""
    parts = {name: pages for part in config.nav or [] for name, pages in part.items()}
    parts["Results"][1:1] = reports()
    named = {page for pages in parts.values() if isinstance(pages, list) for page in pages}
    parts["Guides"] += sorted({path.name for path in ROOT.glob("docs/*.md")} - named)
    return config


def reports() -> list[str]:
    """The benchmarks' reports."""
    return sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("benchmarks/results/*.md"))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie elsewhere, those of linked files, and the API's."""
    own = {f"docs/{file.src_uri}": file.src_uri for file in files.documentation_pages()}
    pages = PAGES | {name: name for name in reports()}
    config.extra["site_pages"] = own | pages
    for source, page in pages.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    for source in sorted({link for page in own | pages for link in linked(page)} - set(own | pages)):
        if site_path(source, config) not in files.src_uris:
            files.append(shown(source, config))
    for name, content in api_pages():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links between files become links between pages; a list needs no empty line before it."""
    sources = {site: source for source, site in config.extra["site_pages"].items()}
    source = sources.get(page.file.src_uri)
    if source is None:
        return markdown
    here = posixpath.dirname(page.file.src_uri)

    def address(match: re.Match[str]) -> str:
        path, anchor = match.group(1), match.group(2) or ""
        if not path:
            return anchor
        target = site_path(repository_path(source, path), config)
        found = files.get_file_from_path(target)
        if found is None or found.inclusion.is_excluded():
            log.warning(f"{source} links {path}, which is not in the site")
        return posixpath.relpath(target, here or ".") + anchor

    return outside_fences(markdown, lambda text: lists_apart(LINK.sub(address, text)))


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Equations as MathML, which browsers show without a script."""

    def mathml(match: re.Match[str]) -> str:
        display = "inline" if match.group(1) == "span" else "block"
        math = convert(html.unescape(match.group(2)).strip(), display=display)
        if "\\" in math:
            log.warning(f"latex2mathml does not know all of {match.group(2)!r}")
        return math if display == "inline" else f'<div class="equation">{math}</div>'

    return EQUATION.sub(mathml, content)


def outside_fences(markdown: str, change: Callable[[str], str]) -> str:
    """Markdown changed where it is no code block."""
    parts = re.split(r"(?ms)(^```.*?^```$)", markdown)
    return "".join(part if part.startswith("```") else change(part) for part in parts)


def lists_apart(text: str) -> str:
    """An empty line before each list that begins right after a paragraph, which Python's Markdown would not see."""
    lines: list[str] = []
    for line in text.split("\n"):
        before = lines[-1] if lines else ""
        in_list = LIST_ITEM.match(before) or before.startswith((" ", "2. "))
        if LIST_ITEM.match(line) and before and not in_list:
            lines.append("")
        lines.append(line)
    return "\n".join(lines)


def repository_path(source: str, link: str) -> str:
    """Where a link of a file leads, as seen from the repository's root."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def linked(source: str) -> Iterator[str]:
    """Files and folders of the repository that a Markdown file links, but pictures of docs/."""
    found: list[str] = []

    def collect(text: str) -> str:
        found.extend(match.group(1) for match in LINK.finditer(text) if match.group(1))
        return text

    outside_fences((ROOT / source).read_text(), collect)
    for link in found:
        path = repository_path(source, link)
        if not (ROOT / path).exists() or path.startswith("../"):
            log.warning(f"{source} links {link}, which is not in the repository")
        elif path != "docs" and not (path.startswith("docs/") and Path(path).suffix not in LANGUAGES):
            yield path


def site_path(path: str, config: MkDocsConfig) -> str:
    """The site's file for one of the repository's, or for one of its folders."""
    pages: dict[str, str] = config.extra["site_pages"]
    if path in pages:
        return pages[path]
    if (ROOT / path).is_dir():
        return pages.get(f"{path}/README.md", f"source/{path}/index.md")
    if Path(path).suffix in LANGUAGES:
        return f"source/{path}.md"
    # MkDocs leaves out what begins with a dot.
    return path.removeprefix("docs/") if path.startswith("docs/") else f"source/{path.lstrip('.')}"


def shown(path: str, config: MkDocsConfig) -> File:
    """A file, or what lies in a folder, as a page; data as it is."""
    place, site = ROOT / path, site_path(path, config)
    if place.is_dir():
        rows = [
            f"- `{one.name}{'/' * one.is_dir()}`{summary(one)}" for one in sorted(place.iterdir()) if is_source(one)
        ]
        return File.generated(config, site, content="\n".join([f"# `{path}/`", "", *rows, ""]))
    if place.suffix in LANGUAGES:
        fence = f"```{LANGUAGES[place.suffix]}\n{place.read_text()}```\n"
        return File.generated(config, site, content=f"---\nsearch:\n  exclude: true\n---\n# `{path}`\n\n{fence}")
    return File.generated(config, site, content=place.read_bytes())


def is_source(path: Path) -> bool:
    """Whether a file or folder is of the repository and not something that Python or an editor left."""
    return not path.name.startswith((".", "__pycache__"))


def summary(path: Path) -> str:
    """The first line of a module's or a package's docstring."""
    module = path / "__init__.py" if path.is_dir() else path
    if module.suffix != ".py" or not module.is_file():
        return ""
    text = ast.get_docstring(ast.parse(module.read_text()))
    return f": {text.splitlines()[0]}" if text else ""


def api_pages() -> Iterator[tuple[str, str]]:
    """Of each module of `API` a page with all that it exports, and one of the commands' settings."""
    for module, title in API.items():
        tree = tree_of(module)
        about = ast.get_docstring(tree) or ""
        values = module == "sb3_permakey.common.presets"
        members = "".join(directive(f"{module}.{name}", values=values) for name in exported(tree))
        yield f"api/{module.removeprefix('sb3_permakey.')}.md", f"# {title}\n\n`{module}`: {about}\n\n{members}"
    yield "api/commands.md", commands_page()


def commands_page() -> str:
    """The settings of each command of the command line, from the table in cli.py."""
    tree = tree_of("sb3_permakey.cli")
    table = next(node.value for node in tree.body if is_assignment(node, "COMMANDS"))
    assert isinstance(table, ast.Dict)
    places = imported(tree)
    text = (
        "# Commands\n\nWhat `sb3-permakey NAME --help` says: each field is a flag, `num_keypoints` is "
        "`--num-keypoints`. Those of a group inside are flags of their own.\n\n"
    )
    for key, value in zip(table.keys, table.values, strict=True):
        assert isinstance(key, ast.Constant)
        assert isinstance(value, ast.Tuple)
        first, *rest = ast.unparse(value.elts[0]).split(".")
        name = ".".join([places[first], *rest])
        text += f"## {key.value}\n\n" + directive(name, level=3, values=True, members=fields(name))
    return text


def directive(name: str, level: int = 2, *, values: bool = False, members: list[str] | None = None) -> str:
    """What makes mkdocstrings write about one name: with values, also what constants are; all members or some."""
    options = {"heading_level": level, "show_attribute_values": values} | ({"members": members} if members else {})
    return f"::: {name}\n    options: {json.dumps(options)}\n\n"


def tree_of(module: str) -> ast.Module:
    """The syntax of a module, which need not be imported for it."""
    place = ROOT.joinpath(*module.split("."))
    path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    return ast.parse(path.read_text())


def fields(name: str) -> list[str]:
    """The fields of a dataclass, by the name of which it can be imported; none where another module defines it."""
    module, _, kind = name.rpartition(".")
    nodes = [node for node in tree_of(module).body if isinstance(node, ast.ClassDef) and node.name == kind]
    return [
        field.target.id
        for node in nodes
        for field in node.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    ]


def is_assignment(node: ast.stmt, name: str) -> bool:
    """Whether a statement gives a name its value."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return any(isinstance(target, ast.Name) and target.id == name for target in targets)


def exported(tree: ast.Module) -> list[str]:
    """The names in a module's `__all__`; without one, what it defines in the open."""
    for node in tree.body:
        if is_assignment(node, "__all__"):
            return list(ast.literal_eval(node.value))  # type: ignore[attr-defined]
    kinds = (ast.ClassDef, ast.FunctionDef)
    names = [node.name for node in tree.body if isinstance(node, kinds)]
    names += [
        node.target.id for node in tree.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    ]
    return [name for name in names if not name.startswith("_")]


def imported(tree: ast.Module) -> dict[str, str]:
    """The names that a module imports, and where from."""
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
