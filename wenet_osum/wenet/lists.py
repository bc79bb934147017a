"""A look at the lists before WeNet streams them: what is not there would be no utterances, and no error."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from urllib.parse import urlparse

from wenet_osum.dataset.index import allowed_tasks
from wenet_osum.dataset.lists import read_raw_list
from wenet_osum.dataset.shard_reader import read_tar_list
from wenet_osum.errors import OsumError
from wenet_osum.tasks import TaskTable


def check_lists(data_type: str, lists: str | list[str], table: TaskTable | None) -> None:
    """Check the lists of a run: raw ones by their lines, shard lists by the tars they name (URLs aside).

    Args:
        table: for our models; every line is read and its task looked up. None, for WeNet's own models,
            whose lists may be less strict: the first line is enough.

    Raises:
        OsumError: no such list, an empty one, one of the other kind, a malformed line, a tar that is not there.
    """
    for path in [lists] if isinstance(lists, str) else lists:
        count = 0
        if data_type == "raw":
            for where, sample in islice(read_raw_list(path), None if table is not None else 1):
                count += 1
                if table is not None and sample.get("task"):
                    allowed_tasks(sample, table, None, where)
        else:
            for where, tar in read_tar_list(path):
                count += 1
                if urlparse(tar).scheme in ("", "file") and not Path(tar).is_file():
                    raise OsumError(where, f"no such tar: {tar:.200}", "check the path in the shard list")
        if not count:
            raise OsumError(path, "is empty", "make the list again")
