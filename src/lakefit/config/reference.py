"""The reference of the pipeline file, written from the types: `python -m lakefit.config.reference > docs/…`."""

import inspect
import re
import types
import typing
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from lakefit.config.examples import EXAMPLES
from lakefit.config.pipeline import Pipeline
from lakefit.config.sections import Section

HEAD = """# The pipeline file

Every section and key, written from the types by `make docs`; `lakefit schema` prints the same for editors, `lakefit
render PIPELINE` a file with every default. Types are strict: "20" is no number. Unknown keys are refused with the
nearest name. Each example stands as it would in the file, and below it what makes the same from Python:

    from lakefit.config.clean import Clean
    from lakefit.prepare.clean import clean

    frame = clean(frame, [Clean(column="city", text=("trim",))])    # any DataFrame; adds the column _marks

A `Pipeline` made of such sections is written as a file by `lakefit.config.render.rendered`.
"""


def reference() -> str:
    """Return the whole reference as Markdown."""
    parts = [HEAD]
    for name, field in Pipeline.model_fields.items():
        parts.append(f"\n## {name}\n")
        models = list(_models(field.annotation))
        if not models:
            parts.append(f"\n{_type(field.annotation)}, {_default(field)}\n")
        for model in models:
            parts += section_reference(model)
    return "".join(parts)


def section_reference(model: type[Section], seen: tuple[type[Section], ...] = ()) -> Iterator[str]:
    """Yield the Markdown of a section, its keys and examples, and of the sections inside it."""
    keys = {field.alias or name: field for name, field in model.model_fields.items()}
    text, meanings = _text(model, list(keys))
    yield f"\n### {model.__name__}\n\n{text}\n"
    rows = [
        f"| `{key}` | {_type(field.annotation)} | {_default(field)} | {meanings.get(key, '')} |"
        for key, field in keys.items()
    ]
    yield "\n| key | type | default | meaning |\n| --- | --- | --- | --- |\n" + "\n".join(rows) + "\n"
    for example in EXAMPLES.get(model, ()):
        yield f"\n```yaml\n{example.yaml}\n```\n"
        yield f"```python\n{example.python}\n```\n"
    for field in model.model_fields.values():
        for inner in _models(field.annotation):
            if inner not in seen:
                yield from section_reference(inner, (*seen, model))


def _text(model: type[Section], keys: list[str]) -> tuple[str, dict[str, str]]:
    """Return the docstring without its `key: …` parts, and these by key (`a, b: …` is said of the first)."""
    whole = " ".join((inspect.getdoc(model) or "").split())
    name = "|".join(re.escape(key) for key in keys)
    parts = re.split(rf"(?:(?<=\. )|^)((?:(?:{name}), )*(?:{name})): ", whole)
    meanings: dict[str, str] = {}
    for names, meaning in zip(parts[1::2], parts[2::2], strict=True):
        first, *others = names.split(", ")
        meanings[first] = meaning.strip().replace("|", "\\|")
        meanings |= dict.fromkeys(others, f"see `{first}`")
    return parts[0].strip(), meanings


def _models(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield typing.cast(type[Section], annotation)
        return
    for argument in get_args(annotation):
        yield from _models(argument)


def _default(field: Any) -> str:
    if field.default_factory is not None:
        made = field.default_factory()
        return "" if isinstance(made, BaseModel) else f"`{made}`"
    if field.default is PydanticUndefined:
        return "required"
    if field.default in ((), None):
        return ""
    return f"`{field.default}`".replace("True", "true").replace("False", "false")


_WORDS = {"str": "text", "int": "integer", "float": "number", "bool": "true or false", "NoneType": "", "Any": "any"}


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        words = dict.fromkeys(word for word in (_type(argument) for argument in arguments) if word)
        return " or ".join(words)
    if origin is tuple:
        inner = dict.fromkeys(_type(argument) for argument in arguments if argument is not Ellipsis)
        return f"list of {' and '.join(inner)}"
    if origin is dict:
        return f"mapping to {_type(arguments[1])}"
    name = getattr(annotation, "__name__", str(annotation))
    return _WORDS.get(name, f"[{name}](#{name.lower()})")


if __name__ == "__main__":
    print(reference(), end="")
