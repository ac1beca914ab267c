"""What a run says to people and programs: a summary, as JSON, Markdown and one HTML file."""

from pipeline.report.pages import render_html, render_markdown
from pipeline.report.summary import Summary
from pipeline.report.tally import Tally

__all__ = ["Summary", "Tally", "render_html", "render_markdown"]
