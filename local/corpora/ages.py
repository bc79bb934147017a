"""Ages told in years."""

from __future__ import annotations

from functools import cache

from wenet_osum.errors import OsumError
from wenet_osum.tasks import LabelField, load_tasks


@cache
def _age() -> LabelField:
    return load_tasks().fields["age"]


def age_label(years: str, where: str) -> dict[str, str]:
    """``{"age": class}`` for a number of years, by the ranges of the task table.

    Args:
        where: file and line that tell it.

    Raises:
        OsumError: no age that somebody can have.
    """
    value = _age().canonical(years) if years.strip().replace(".", "", 1).isdigit() else None
    if value is None:
        raise OsumError(where, f"age {years!r:.80}", "get the file again, or mend the line")
    return {"age": value}
