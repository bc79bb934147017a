"""The two kinds of trouble, and how a command ends on each.

``OsumError`` is the user's to mend: it stops the command with one line and exit status 1.
``BadUtterance`` concerns one utterance among many: the caller sets it aside, counts it by
``cause`` and lists it; the run goes on.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable


class OsumError(Exception):
    """One line: where it is wrong (file and line, or key), what is wrong, what to do.

    Example:
        >>> raise OsumError("data/train/text:7", "no such id in wav.scp", "add it or drop the line")
    """

    def __init__(self, where: str, what: str = "", mend: str = ""):
        # torch makes an error of a data worker anew from its traceback, in one string.
        where = where.rpartition("OsumError: ")[2]
        self.where, self.what, self.mend = where, what, mend
        line = ": ".join(part for part in (where, what) if part)
        super().__init__(f"{line}; {mend}" if mend else line)

    def __reduce__(self):  # an exception with several arguments crosses process borders only so
        return (OsumError, (self.where, self.what, self.mend))


class BadUtterance(Exception):
    """An utterance that cannot be used.

    Args:
        key: utterance id.
        cause: a short fixed slug, the key of the count (``truncated``, ``too_long``, ``nan`` ...).
        detail: one line for ``skipped.jsonl``.
    """

    def __init__(self, key: str, cause: str, detail: str = ""):
        self.key, self.cause, self.detail = key, cause, detail
        super().__init__(f"{key}: {cause}: {detail}")

    def __reduce__(self):
        return (BadUtterance, (self.key, self.cause, self.detail))


def run_main(main: Callable[[], int | None]) -> None:
    """Run a command's ``main`` and end the process: 0, or one line on stderr and 1.

    A full disk, a missing file and a refused permission are told in the same one-line form as
    ``OsumError``; any other exception is a fault of ours and keeps its traceback.
    """
    try:
        code = main() or 0
        sys.stdout.flush()
    except OsumError as e:
        # torch adds lines of its own to an error that passes through its data pipes.
        print(f"error: {str(e).splitlines()[0]}", file=sys.stderr)
        code = 1
    except BrokenPipeError:  # `osum ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as e:
        if e.errno not in (
            *(errno.ENOSPC, errno.EDQUOT, errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS),
            *(errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EIO),
        ):
            raise
        mend = {
            errno.ENOSPC: "free some space and run the command again",
            errno.EDQUOT: "free some space and run the command again",
            **dict.fromkeys(
                (errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP),
                "check the path",
            ),
        }.get(e.errno, "check the permissions")
        print(f"error: {e.filename or 'disk'}: {e.strerror}; {mend}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)
