"""The command that every ``prepare_*.py`` is."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from wenet_osum.errors import OsumError
from wenet_osum.fileio import atomic_folder, atomic_write
from wenet_osum.tasks import load_tasks

from .corpus import Corpus
from .found import Found, NotThere
from .kaldi_dir import write_kaldi_dir

Collect = Callable[[Path, Found], None]


def get_args(corpus: Corpus, argv: Sequence[str] | None, doc: str | None) -> argparse.Namespace:
    """Parse the command line.

    Raises:
        OsumError: ``--subsets`` names one that the corpus does not have.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=f"{corpus.url}"
    )
    parser.add_argument("corpus_root", type=Path, help=f"folder of {corpus.name} as it is published")
    parser.add_argument(
        "output_dir", type=Path, help="new folder: gets a Kaldi dir a subset, and left_out.tsv"
    )
    subsets = f"some of {','.join(corpus.published)}; default: all" + (
        " that there are" if corpus.default else ""
    )
    parser.add_argument("--subsets", default="", help=subsets)
    parser.add_argument(
        "--allow_partial",
        action="store_true",
        help="go on where subsets or files are missing or the counts are not the published ones",
    )
    args = parser.parse_args(argv)
    args.subsets = list(dict.fromkeys(name.strip() for name in args.subsets.split(",") if name.strip()))
    for name in args.subsets:
        if name not in corpus.published:
            raise OsumError(
                "--subsets",
                f"no subset {name!r} in {corpus.name}",
                f"take some of {', '.join(corpus.published)}",
            )
    return args


def prepare(corpus: Corpus, collect: Collect, argv: Sequence[str] | None, doc: str | None = None) -> int:
    """Run a script: find, check the counts, write; returns 0.

    Args:
        corpus: its description.
        collect: told the root (absolute) and an empty ``Found`` of one subset, fills it in; raises ``NotThere``
            for a subset that this copy does not have.
        argv: the command line; None: the process's own.
        doc: the script's docstring.

    Raises:
        OsumError: whatever is wrong with the corpus, in one line.
    """
    args = get_args(corpus, argv, doc)
    root = Path(os.path.abspath(args.corpus_root))
    if not root.is_dir():
        raise OsumError(str(root), "no such folder", f"get {corpus.name} from {corpus.url}")
    names = args.subsets or (corpus.default(root) if corpus.default else corpus.published)
    with atomic_folder(args.output_dir) as output:
        found = [_collect(corpus, collect, root, name, args) for name in names]
        subsets = [subset for subset in found if subset is not None]
        if not any(subset.utterances for subset in subsets):
            raise OsumError(str(root), f"no utterance of {corpus.name} in it", "check the path")
        if not args.allow_partial:
            _check_counts(corpus, root, subsets)
        tasks = load_tasks()
        for subset in subsets:
            if subset.utterances:
                (output / subset.subset).mkdir()
                write_kaldi_dir(output / subset.subset, subset.utterances, tasks)
        with atomic_write(output / "left_out.tsv") as f:
            f.writelines("\t".join((s.subset, *row)) + "\n" for s in subsets for row in s.rows())
    _report(corpus, args.output_dir, subsets)
    return 0


def _collect(
    corpus: Corpus, collect: Collect, root: Path, subset: str, args: argparse.Namespace
) -> Found | None:
    found = Found(corpus, subset, args.allow_partial)
    try:
        collect(root, found)
    except NotThere as e:
        if not args.allow_partial:
            raise
        print(f"{subset}: not there ({e.where})")
        return None
    return found


def _check_counts(corpus: Corpus, root: Path, subsets: Sequence[Found]) -> None:
    wrong = [
        f"{s.subset} has {s.items} items, not {corpus.published[s.subset]}"
        for s in subsets
        if corpus.published[s.subset] not in (None, s.items)
    ]
    if wrong:
        mend = f"get the whole of it ({corpus.url}), or take what is there by --allow_partial"
        raise OsumError(str(root), f"other counts than published: {', '.join(wrong)}", mend)


def _report(corpus: Corpus, output: Path, subsets: Sequence[Found]) -> None:
    """What was made, and what was left out by cause."""
    print(f"{corpus.name} ({corpus.licence}) -> {output}")
    for s in subsets:
        number = corpus.published[s.subset]
        published = "no number is published" if number is None else f"{number} are published"
        print(f"{s.subset}: {len(s.utterances)} of {s.items} items used; {published}")
        causes = Counter((what, cause) for _, what, cause in s.rows())
        for (what, cause), count in sorted(causes.items()):
            kind = "left out" if what == "utterance" else f"without {what}"
            print(f"  {kind}: {count}: {cause}")
    if any(s.left_out for s in subsets):
        print(f"each of them: {output / 'left_out.tsv'}")
