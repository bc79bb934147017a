"""A text that grows: what each piece of a recording adds to it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import cast

from wenet_osum.decode.formats import Heard, Transcript
from wenet_osum.serve.service import Piece
from wenet_osum.text.normalize import join_words


async def growing(
    stream: AsyncIterator[Piece | Transcript],
    whole: Callable[[Heard], str],
    by_piece: bool = True,
    cut: Callable[[str], str] = lambda text: text,
) -> AsyncGenerator[str | Transcript, None]:
    """The additions to the text of the first task, none of them empty, which joined are ``cut(whole(...))`` of what
    comes last, the ``Transcript``.

    Args:
        stream: ``Service.stream``; it is closed.
        whole: the text of the whole recording, which begins with the joined texts of its pieces. by_piece: else
            all of it comes at the end.
        cut: how much of a text is told: a beginning of it, and of a longer one no less.
    """
    told, texts = "", []
    async with contextlib.aclosing(cast(AsyncGenerator[Piece | Transcript, None], stream)) as items:
        async for item in items:
            if isinstance(item, Transcript):
                text = cut(whole(next(iter(item.tasks.values()))))
            elif by_piece:
                texts.append(next(iter(item.answers.values())).answer.text or "")
                text = cut(join_words(texts))
            else:
                continue
            if len(text) > len(told):
                yield text[len(told) :]
                told = text
            if isinstance(item, Transcript):
                yield item
