"""Scores: one scorer per kind of answer, one report.

Every figure is a function of counts that add up over utterances (errors and tokens, shifts and
words, cells of a confusion matrix), which is what lets one bootstrap serve them all. A missing
hypothesis is an error everywhere, never a smaller denominator.
"""

from wenet_osum.score.report import format_table, write_scores
from wenet_osum.score.score import score_task
from wenet_osum.score.wer import ErrorRate, error_rate

__all__ = ["ErrorRate", "error_rate", "format_table", "score_task", "write_scores"]
