"""What every section of a pipeline file shares: frozen, strict, unknown keys refused, keys explained by docstrings."""

import inspect
import re
import typing
from collections.abc import Iterator
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema


class Explained:
    """A class whose JSON schema says what each property means, in the words of its docstring."""

    __slots__ = ()
    __pydantic_fields__: ClassVar[dict[str, FieldInfo]]

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Return the JSON schema, each property with the meaning that the reference gives it."""
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for key, meaning in explained(cls)[1].items():
            properties[key]["description"] = meaning
        return schema


class Record(Explained, BaseModel):
    """Frozen, and of strict types: "20" is no number and 1 is no boolean. Read as JSON, a list stands for a tuple."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, populate_by_name=True, allow_inf_nan=False,
        # It may be an address with a password.
        hide_input_in_errors=True,
    )  # fmt: skip


class Section(Record):
    """A record that a person may also write in Python, where a list may stand for a tuple as well.

    This costs memory: what a validator in Python looks at is made of Python's objects before it becomes what it is.
    """

    @field_validator("*", mode="before")
    @classmethod
    def _lists_are_tuples(cls, value: Any) -> Any:
        return _as_tuple(value)


def explained(section: type[Explained]) -> tuple[str, dict[str, str]]:
    """Return the text of a section's docstring, and the meaning of each key by its name in a file.

    A part `key: …` (or `key, key: …`) begins a sentence of the docstring. A key without one means what the section says
    that it holds; a key of neither is left out.
    """
    fields = {field.alias or name: field for name, field in section.__pydantic_fields__.items()}
    # Lists and paragraphs stay, other line ends are of the source alone.
    whole = re.sub(r"(?<!\n)\n(?!\n|- ) *", " ", inspect.getdoc(section) or "")
    name = "|".join(re.escape(key) for key in fields)
    parts = re.split(rf"(?:(?<=\. )|(?<=\n)|^)((?:(?:{name}), )*(?:{name})): ", whole)
    meanings = {key: explained(inner)[0] for key, field in fields.items() for inner in sections_in(field.annotation)}
    for names, meaning in zip(parts[1::2], parts[2::2], strict=True):
        meanings |= dict.fromkeys(names.split(", "), " ".join(meaning.split()))
    return parts[0].strip(), meanings


def sections_in(annotation: Any) -> Iterator[type[Explained]]:
    """Yield the sections that a type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, Explained):
        yield annotation
        return
    for argument in typing.get_args(annotation):
        yield from sections_in(argument)


def with_tuples(value: Any) -> Any:
    """Return a mapping with its lists as tuples, which a strict section wants from Python as well."""
    if not isinstance(value, dict):
        return value
    return {key: tuple(inner) if isinstance(inner, list) else inner for key, inner in value.items()}


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list) else value
