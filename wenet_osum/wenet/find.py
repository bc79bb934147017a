"""Find WeNet, make sure it is WeNet, mend what its import trips over, and import it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from wenet_osum.errors import OsumError
from wenet_osum.wenet.mend_audio import mend_torchaudio
from wenet_osum.wenet.mends import mend_conv_names

# Commits whose train, average_model and recognize were run with our model; none of WeNet's releases has
# utils/init_dataset.py, so v3.1.0 (2024-05) and before are too old.
TRIED = "d2156645 (2025-06-01), 40c43eda (2025-09-07), 01546996 (2025-12-19)"
NEEDED = ("utils/init_model.py", "utils/init_dataset.py", "utils/init_tokenizer.py", "dataset/processor.py")
TABLES = ("WENET_ENCODER_CLASSES", "WENET_DECODER_CLASSES", "WENET_CTC_CLASSES", "WENET_MODEL_CLASSES")


def wenet_folder() -> Path:
    """The folder of the package ``wenet``; a checkout named by ``WENET_DIR`` is put on the path if there
    is no other.

    Raises:
        OsumError: there is none, it is another package of that name, or it is too old.
    """
    here = os.environ.get("WENET_DIR")
    spec = importlib.util.find_spec("wenet")
    if spec is None and here and (Path(here) / "wenet").is_dir():
        sys.path.insert(0, here)
        spec = importlib.util.find_spec("wenet")
    if spec is None:
        where = f"WENET_DIR {here}" if here else "wenet"
        raise OsumError(
            where, "no WeNet to import", "set WENET_DIR or PYTHONPATH to a checkout of wenet-e2e/wenet"
        )
    folders = [Path(f) for f in spec.submodule_search_locations or []]
    folder = next((f for f in folders if (f / "bin" / "train.py").is_file()), None)
    if folder is None or not (folder / "utils").is_dir():
        found = spec.origin or ", ".join(map(str, folders))
        mend = "uninstall it, or put a checkout of wenet-e2e/wenet before it on PYTHONPATH"
        raise OsumError(found, "the package 'wenet' here is not the speech toolkit", mend)
    for name in NEEDED:
        if not (folder / name).is_file():
            raise OsumError(
                str(folder), f"this WeNet has no {name}: it is too old", f"take one of those tried: {TRIED}"
            )
    return folder


def import_wenet() -> ModuleType:
    """WeNet's ``utils.init_model``, with all it needs imported.

    Raises:
        OsumError: a package that it needs is missing, or its tables are not where they were.
    """
    folder = wenet_folder()
    mend_conv_names(folder)
    mend_torchaudio()
    try:
        module = importlib.import_module("wenet.utils.init_model")
    except ModuleNotFoundError as e:
        if (e.name or "").partition(".")[0] == "wenet":
            raise OsumError(
                str(folder), f"half of WeNet is missing: no {e.name}", "check it out anew"
            ) from None
        mend = f"pip install {e.name}, or all it needs: the extra [wenet] of this package"
        raise OsumError(str(folder), f"this WeNet needs the package {e.name}", mend) from None
    except (ImportError, AttributeError) as e:
        what = f"this WeNet does not import here ({e})"
        raise OsumError(str(folder), what, f"take one of the commits tried: {TRIED}") from None
    for table in TABLES:
        if not isinstance(getattr(module, table, None), dict):
            what = f"this WeNet has no table {table}: it is too old or too new"
            raise OsumError(str(folder), what, f"take one of the commits tried: {TRIED}")
    return module
