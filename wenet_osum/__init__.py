"""OSUM speech understanding for WeNet-style toolkits: eight tasks, one model, Kaldi data in."""

__version__ = "0.1.0"
