"""The summary as pages: Markdown for terminals and chats, one HTML file for everybody else."""

from functools import cache

import jinja2

from pipeline.report.summary import Summary


@cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline.report"),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render_markdown(summary: Summary) -> str:
    """Render the summary as Markdown."""
    return _templates().get_template("report.md").render(summary=summary)


def render_html(summary: Summary) -> str:
    """Render the summary as one self-contained HTML file."""
    return _templates().get_template("report.html").render(summary=summary)
