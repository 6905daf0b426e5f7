"""report.html: one page that explains a run to the person who pays for it and to the one who repeats it."""

from __future__ import annotations

from pathlib import Path

from ftkit.files import write_text
from ftkit.report.data_section import data
from ftkit.report.forgetting import forgetting
from ftkit.report.markup import Markup, element, join
from ftkit.report.read import RunFiles, read_run
from ftkit.report.sections import curves, headline, recipe, resources, samples, versions
from ftkit.report.summary import summarise
from ftkit.report.tables import exports

REPORT = "report.html"
# Nothing is fetched and nothing runs, even if a text from the data should slip through as markup.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def write_report(run: Path) -> Path:
    """Write ``report.html`` into a run folder from the files that it holds.

    Files that an interrupted run did not get to are named on the page. The same files give the same bytes.

    Args:
        run: The run folder.

    Returns:
        The page.

    Raises:
        UsageError: The folder has no recipe.yaml.
    """
    target = run / REPORT
    write_text(target, render_page(read_run(run)))
    return target


def render_page(run: RunFiles) -> str:
    """The page as text."""
    summary = summarise(run)
    main = element(
        "main",
        headline(run, summary),
        curves(run),
        data(run),
        samples(run),
        forgetting(run),
        exports(run),
        resources(run, summary),
        versions(run),
        recipe(run),
    )
    return whole_page(f"{summary.recipe} on {summary.model}: report", main)


def whole_page(title: str, main: Markup) -> str:
    """A page by itself: it fetches nothing and runs nothing.

    Args:
        title: In the window's frame.
        main: Its ``main`` element.
    """
    style = Markup(Path(__file__).with_name("report.css").read_text(encoding="utf-8"))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", style),
    )
    return join(Markup("<!DOCTYPE html>\n"), element("html", head, element("body", main), lang="en"), "\n")
