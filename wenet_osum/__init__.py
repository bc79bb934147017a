"""OSUM speech understanding for WeNet-style toolkits: eight tasks, one model, Kaldi data in."""

__version__ = "0.1.0"


def register(task: str = "asr") -> None:
    """Put our models into the WeNet on the path; see ``wenet_osum.wenet.register``."""
    from wenet_osum.wenet.register import register as put

    put(task)
