"""The parts of ``local/make_tiny_corpus.py``: sentences, voices, delivery, event sounds, espeak-ng and the
writer."""
