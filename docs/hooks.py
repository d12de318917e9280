"""What MkDocs does with the pages beyond Markdown: generated parts, links into the repository.

The pages are written so that they read well in the repository too: their links are relative to
their own file there. Nothing here needs torch.
"""

from __future__ import annotations

import argparse
import logging
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pygments.formatters import HtmlFormatter

from conformance import cli
from conformance.clauses import BY_ID, CLAUSES, Clause
from reference.losses import LOSSES
from targets.target import DTYPES, REDUCTIONS
from tests.bank import defects, right_ones

log = logging.getLogger("mkdocs.hooks.loss_conformance")  # a warning fails a strict build
ROOT = Path(__file__).parent.parent
# Files of the repository that are pages or downloads as well, and their addresses.
INCLUDED = {
    "README.md": "readme.md",
    "CONTRIBUTING.md": "contributing.md",
    "reference/SPEC.md": "spec.md",
    "conformance/verdict/verdict.schema.json": "verdict.schema.json",
}
FAMILIES = tuple(dict.fromkeys(clause.family for clause in CLAUSES))
LINK = re.compile(r"\[([^\[\]]*(?:\[[^\]]*\])?[^\[\]]*)\]\(([^()\s#]*)(#[^()\s]*)?\)")
CLAUSE = re.compile(rf"(?<!\[)`((?:{'|'.join(FAMILIES)})\.[a-z_]+)`")
FENCED = re.compile(r"(^[ ]*```.*?^[ ]*```$)", re.MULTILINE | re.DOTALL)
MARKER = re.compile(r"^<!-- (\w+)(?:: (\w+))? -->$", re.MULTILINE)
REQUEST = re.compile(
    r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//"
)
IMPORT = re.compile(r"(?:@import|url\()\s*[\"']?(?:https?:)?//")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Pages that live elsewhere in the repository, and the colours of Pygments."""
    for path, address in INCLUDED.items():
        if (ROOT / path).is_file():
            files.append(File.generated(config, address, abs_src_path=str(ROOT / path)))
    files.append(File.generated(config, "assets/pygments.css", content=_colours()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Markers become what they name, links into the repository pages, clause ids links."""
    address = page.file.src_uri
    path = next((p for p, a in INCLUDED.items() if a == address), f"docs/{address}")
    parts = FENCED.split(MARKER.sub(lambda m: _generated(m[1], m[2]), markdown))
    for k in range(0, len(parts), 2):  # what stands between the code blocks
        parts[k] = LINK.sub(lambda m: _link(m, path, address), parts[k])
        if address.startswith("families/") or "/" not in address:
            parts[k] = CLAUSE.sub(lambda m: _clause_link(m, address), parts[k])
    return "".join(parts)


def on_post_build(config: MkDocsConfig) -> None:
    """Nothing that a page shows may come from another server."""
    for file in sorted(Path(config.site_dir).rglob("*")):
        pattern = {".html": REQUEST, ".css": IMPORT}.get(file.suffix)
        if pattern and (found := pattern.search(file.read_text(encoding="utf-8"))):
            log.warning("%s asks another server: %s", file.name, found[0])


def _colours() -> str:
    styles = {"light": "default", "dark": "github-dark"}
    return "\n".join(
        HtmlFormatter(style=style).get_style_defs(f"[data-bs-theme={mode}] .highlight")
        for mode, style in styles.items()
    )


# -- links -------------------------------------------------------------------------------------


def _link(match: re.Match[str], path: str, address: str) -> str:
    """A link as it must be in the built pages; ``path`` is of the file that it stands in.

    To a file of the repository that is no page it becomes its text. What leads nowhere stays, and
    MkDocs complains.
    """
    text, link, anchor = match[1], match[2], match[3] or ""
    if not link or ":" in link:
        return match[0]
    goal = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
    if not (ROOT / goal).exists():
        return match[0]
    place = INCLUDED.get(goal) or goal.removeprefix("docs/")
    if place == goal:
        return text
    return f"[{text}]({posixpath.relpath(place, posixpath.dirname(address) or '.')}{anchor})"


def _clause_link(match: re.Match[str], address: str) -> str:
    clause = BY_ID.get(match[1])
    if clause is None:
        log.warning("%s names a clause that does not exist: %s", address, match[1])
        return match[0]
    page = f"families/{clause.family}.md"
    if address == page:
        return match[0]
    return f"[{match[0]}]({posixpath.relpath(page, posixpath.dirname(address) or '.')}#{clause.id})"


# -- generated parts ---------------------------------------------------------------------------


def _generated(kind: str, argument: str | None) -> str:
    if kind == "clauses" and argument in FAMILIES:
        return "\n".join(_clause_table(argument))
    if kind == "command":
        return "\n".join(_command())
    if kind == "losses":
        return "\n".join(_losses())
    if kind == "bank":
        return "\n".join(_bank())
    log.warning("nothing generates %s %s", kind, argument)
    return ""


def _losses() -> Iterator[str]:
    """What ``--loss`` can name."""
    yield "| `--loss` | stands for | parameters | tried, beside the default | must raise |"
    yield "|---|---|---|---|---|"
    for loss in LOSSES.values():
        taken, tried, refused = "–", "–", "–"
        for one in loss.parameters:
            taken = f"`{one.name}` = {one.default:g}"
            tried, refused = (", ".join(f"{v:g}" for v in vs) for vs in (one.tried, one.refused))
        function = f"`torch.nn.functional.{loss.function}`"
        yield f"| `{loss.name}` | {function} | {taken} | {tried} | {refused} |"


def _clause_table(family: str) -> Iterator[str]:
    """The clauses of a family as the code has them, with the reasons of SPEC.md."""
    reasons = dict(
        re.findall(
            r"^\| `([a-z_.]+)` \| \w+ \| .+? \| (.+?) \|$",
            (ROOT / "reference" / "SPEC.md").read_text(encoding="utf-8"),
            re.MULTILINE,
        )
    )
    yield "| clause | level | sentence | why | judged |"
    yield "|---|---|---|---|---|"
    for clause in CLAUSES:
        if clause.family == family:
            name = f'<a id="{clause.id}"></a>`{clause.id}`'
            yield (
                f"| {name} | {clause.level} | {clause.sentence} | {reasons[clause.id]} "
                f"| {_judged(clause)} |"
            )


def _judged(clause: Clause) -> str:
    """For which targets, dtypes and profiles a clause is looked at, in words."""
    claims = " and ".join(f"`{claim}`" for claim in sorted(clause.claims))
    parts = [f"with {claims}" if claims else "always"]
    if clause.dtypes != DTYPES:
        parts.append(f"in {' and '.join(clause.dtypes)}")
    if clause.first_of:
        parts.append(f"in the first claimed of {', '.join(clause.first_of)}")
    if set(clause.reductions) != set(REDUCTIONS):
        parts.append(f"for {' and '.join(clause.reductions)}")
    if clause.every_reduction:
        parts.append("with more than one reduction")
    if clause.profile != "quick":
        parts.append(f"from profile {clause.profile}")
    return ", ".join(parts)


def _bank() -> Iterator[str]:
    """The mutants by what is wrong with them."""
    found = defects()
    yield "| file | what is wrong | mutants | families |"
    yield "|---|---|---|---|"
    for defect in found:
        families = ", ".join(f"[{f}](families/{f}.md)" for f in defect.families)
        yield f"| `{defect.file}` | {defect.about} | {defect.mutants} | {families} |"
    yield f"| | in all | {sum(defect.mutants for defect in found)} | |"
    yield f"\nRight ones: {right_ones()}."


def _command() -> Iterator[str]:
    """The help of the command and of each of its commands, as it prints it."""
    parser = cli._parser()
    yield from _help(parser)
    groups: Any = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    for name, command in next(groups).choices.items():
        yield f"\n## {name}\n"
        yield from _help(command)


def _help(parser: argparse.ArgumentParser) -> Iterator[str]:
    parser.formatter_class = _Wide
    yield f"```text\n{parser.format_help().rstrip()}\n```"


class _Wide(argparse.HelpFormatter):
    """Help of one width, whatever the terminal of who builds the pages."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, **(options | {"width": 92, "max_help_position": 30}))
