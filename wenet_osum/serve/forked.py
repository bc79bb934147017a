"""Imported by the fork server alone, last of all. What it has imported is not looked at by its children's garbage
collections, which would copy it, nor torn down at its end, which would take seconds."""

from __future__ import annotations

import atexit
import gc
import os

gc.freeze()
atexit.register(os._exit, 0)
