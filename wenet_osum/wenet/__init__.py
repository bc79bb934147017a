"""The one room that knows WeNet's package: ``register`` and ``python -m wenet_osum.wenet``.

Nothing of WeNet is edited or copied: its tables are added to, and a few of its functions are put behind
ones of ours that hand everything that is not for our models on to them.
"""
