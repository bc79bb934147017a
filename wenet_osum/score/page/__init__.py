"""The report: one self-contained HTML page of a set of scores."""

from wenet_osum.score.page.build import Decoded, Limits, Page, build_page
from wenet_osum.score.page.html import render
from wenet_osum.score.page.run_facts import RunFacts, gather_facts

__all__ = ["Decoded", "Limits", "Page", "RunFacts", "build_page", "gather_facts", "render"]
