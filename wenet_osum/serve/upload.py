"""A form with one file in it: read into memory, never to a disk, each part bounded."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from wenet_osum.serve.errors_http import ApiError

MAX_FIELDS = 64
MAX_FIELD = 64 * 1024  # bytes of a field that is no file


class _InMemory(MultiPartParser):
    spool_max_size = 1 << 40  # beyond what ``Bodies`` lets in: nothing spills to a temporary file


@dataclass
class Form:
    """What was sent.

    Attributes:
        data: the file's bytes. name: its name as it was given, without folders and control characters; it is shown,
            never opened.
        fields: name without ``[]`` -> the values of a list, else one string.
    """

    data: bytes = b""
    name: str = ""
    fields: dict[str, str | list[str]] = field(default_factory=dict)


def shown_name(given: str | None) -> str:
    """The last part of a path of any system, at most 120 characters of it that can be printed; ``audio`` where
    nothing is left."""
    last = re.split(r"[/\\]", given or "")[-1]
    last = "".join(c for c in last if c.isprintable()).strip()
    return last[-120:] if last.strip(".") else "audio"


async def read_form(request: Request, lists: frozenset[str]) -> Form:
    """A ``multipart/form-data`` request with the audio in its part ``file``.

    Args:
        lists: fields that may come several times (``name`` or ``name[]``).

    Raises:
        ApiError: no such form, no file, or two; a field that comes twice and is no list; what ``Bodies`` raises.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise ApiError(
            400, "send a multipart/form-data request with the audio in its part 'file'", None, "no_form"
        )
    if options.get(b"charset", b"utf-8").lower() not in (b"utf-8", b"utf8"):
        raise ApiError(400, "send the fields in UTF-8", None, "invalid_value")
    parser = _InMemory(
        request.headers, request.stream(), max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD
    )
    try:
        parts = await parser.parse()
    except MultiPartException as e:
        raise ApiError(400, f"malformed form: {e.message}", None, "malformed_form") from None
    form, given = Form(), False
    for name, value in parts.multi_items():
        bare = name.removesuffix("[]")
        if isinstance(value, UploadFile):
            if name != "file":
                raise ApiError(400, f"a file in part {name[:60]!r}; send it in 'file'", name[:60], "no_file")
            value.file.seek(0)
            form.data, form.name, given = value.file.read(), shown_name(value.filename), True
            value.file.close()
        elif name == "file":
            raise ApiError(400, "part 'file' has no filename, so it is no file", "file", "no_file")
        elif bare in lists:
            found = form.fields.setdefault(bare, [])
            assert isinstance(found, list)
            found.append(value)
        elif bare in form.fields:
            raise ApiError(400, f"{bare[:60]} is given twice", bare[:60], "invalid_value")
        else:
            form.fields[name] = value
    if not given:
        raise ApiError(400, "Missing required parameter: 'file'.", "file", "missing_required_parameter")
    if not form.data:
        raise ApiError(400, "the file has no bytes", "file", "invalid_audio")
    return form
