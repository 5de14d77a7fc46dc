"""A multipart form: a few short fields and one file."""

from collections.abc import Callable
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser, parse_options_header
from starlette.types import Scope

from chroma_models.errors import InvalidRequest

MAX_FIELD_BYTES = 16_384
MAX_PARTS = 32


@dataclass(frozen=True)
class Form:
    """Parts by their name."""

    fields: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict, repr=False)

    def text(self, name: str, max_chars: int, hint: str = "") -> str:
        """A field that has to be there, without the blanks around it. Raises InvalidRequest."""
        value = self.fields.get(name, "").strip()
        if not value:
            raise InvalidRequest(f"The form field '{name}' is missing or empty{hint}.", name)
        return plain(value, name, max_chars)

    def file(self, name: str) -> bytes:
        """Raises InvalidRequest."""
        if name not in self.files:
            raise InvalidRequest(f"The form has no file '{name}'; send the recording as a file with that name.", name)
        return self.files[name]

    def only(self, *names: str) -> None:
        """Raises InvalidRequest where the form holds anything else."""
        for name in [*self.fields, *self.files]:
            if name not in names:
                raise InvalidRequest(f"Unknown form field '{name[:64]}'; leave it out.", name[:64])


def plain(value: str, name: str, max_chars: int) -> str:
    """Text a database and a screen can hold. Raises InvalidRequest."""
    if len(value) > max_chars:
        raise InvalidRequest(f"'{name}' is longer than {max_chars} characters.", name)
    if any(ord(char) < 32 and char not in "\t\r\n" for char in value):
        raise InvalidRequest(f"'{name}' holds control characters; leave them out.", name)
    return value


def parse_form(scope: Scope, body: bytes) -> Form:
    """Raises InvalidRequest. Meant for a worker thread."""
    told = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    kind, options = parse_options_header(told)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise InvalidRequest("Send a form as multipart/form-data, with the recording as a file in it.")
    form, ended = Form(), False

    def add(into: dict[str, str] | dict[str, bytes], part: Field | File, read: Callable[[], str | bytes]) -> None:
        if len(form.fields) + len(form.files) >= MAX_PARTS:
            raise InvalidRequest(f"The form has more than {MAX_PARTS} parts.")
        name = (part.field_name or b"").decode("utf-8", "replace")
        if name in form.fields or name in form.files:
            raise InvalidRequest(f"The form field '{name[:64]}' is sent twice.", name[:64])
        into[name] = read()  # type: ignore[assignment]

    def text_of(part: Field) -> str:
        value = part.value or b""
        if len(value) > MAX_FIELD_BYTES:
            raise InvalidRequest("A form field is far too long; recordings are sent as files, with a file name.")
        return value.decode("utf-8")

    def bytes_of(part: File) -> bytes:
        part.file_object.seek(0)
        return part.file_object.read()

    def end() -> None:
        nonlocal ended
        ended = True

    parser = FormParser(
        "multipart/form-data",
        lambda part: add(form.fields, part, lambda: text_of(part)),
        lambda part: add(form.files, part, lambda: bytes_of(part)),
        end,
        boundary,
        config={"MAX_MEMORY_FILE_SIZE": len(body) + 1},  # never a file on disk
    )
    try:
        parser.write(body)
        parser.finalize()
    except (FormParserError, UnicodeDecodeError):
        raise InvalidRequest("The multipart form cannot be read; let your HTTP library write it.") from None
    if not ended:
        raise InvalidRequest("The multipart form ends in the middle; its closing boundary is missing.")
    return form
