"""The reference of the pipeline file, written from the types: `python -m lakefit.config.reference > docs/…`."""

import json
import keyword
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lakefit.config.examples import EXAMPLES
from lakefit.config.pipeline import Pipeline
from lakefit.config.sections import Explained, explained, sections_in

HEAD = """# The pipeline file

Every section and key, written from the types by `make docs`; `lakefit schema` prints the same for editors, `lakefit
render PIPELINE` a file with every default. Types are strict: "20" is no number. Unknown keys are refused with the
nearest name. Each example stands as it would in the file, and below it what makes the same from Python.

## From Python

A pipeline is a `Pipeline` of the sections below, and `prepare` does with it what `lakefit prepare` does with a file:

```python
from pathlib import Path

from lakefit.api import prepare
from lakefit.config import Categorical, Clean, Deduplicate, Features, Fit, Label, Model, Numeric, Output, Parse
from lakefit.config import Pipeline, Reject, Source, Split, Table, Train
from lakefit.config.render import rendered
from lakefit.dataset.manifest import read_manifest

Path("orders.csv").write_text(
    "id,day,city,amount,late\\n"
    + "".join(f"{i},{i % 28 + 1}.1.2024, Rome ,{i % 50 - 1},{i % 3 // 2}\\n" for i in range(600))
)
orders = Table(
    path="orders.csv",
    format="csv",
    options={"header": True},
    schema="id INT, day STRING, city STRING, amount DOUBLE, late INT",
)
pipeline = Pipeline(
    name="orders",
    source=Source(tables={"orders": orders}, rows="orders"),
    clean=[
        Clean(column="city", text=["trim", "upper"]),
        Clean(column="day", parse=Parse(as_="date", formats=["d.M.yyyy"])),
    ],
    deduplicate=Deduplicate(key=["id"], keep="last by day"),
    reject=[Reject(when="amount < 0", because="refunded")],
    split=Split(by=["day"]),
    features=Features(numeric=Numeric(columns=["amount"]), categorical=Categorical(columns=["city"])),
    label=Label(expression="late > 0"),
    output=Output(path="lake"),
    train=Train(
        model=Model(sequential=[{"Dense": {"units": 1, "activation": "sigmoid"}}]),
        fit=Fit(epochs=5, batch_size=64),
    ),
)
dataset = prepare(pipeline)  # lake/orders/datasets/<fingerprint>, as the files there are now
print(read_manifest(dataset).ledger.rejected)  # {'day does not parse as date': 0, 'refunded': 12}
Path("orders.yaml").write_text(rendered(pipeline))  # lakefit run orders.yaml goes on from there
```

The active Spark session is used, else a local one is started and stopped. Lists and tuples are the same; the keys that
Python keeps to itself are `as_`, `fingerprint` (`from`) and `power` (`lambda`). `prepare("orders.yaml")` takes a file;
`validate` of the same module checks either without Spark. The steps of `clean` alone, on any DataFrame:

```python
from lakefit.prepare.clean import clean

frame = clean(frame, [Clean(column="city", text=["trim"])])  # adds the column _marks
```
"""


def reference() -> str:
    """Return the whole reference as Markdown."""
    parts = [HEAD]
    seen: set[type[Explained]] = set()
    meanings = explained(Pipeline)[1]
    for name, field in Pipeline.model_fields.items():
        parts.append(f"\n## {name}\n")
        sections = list(sections_in(field.annotation))
        if not sections:
            parts.append(f"\n{_type(field.annotation)}, {_default(field)}: {meanings[name]}\n")
        for section in sections:
            parts += section_reference(section, seen)
    return "".join(parts)


def section_reference(section: type[Explained], seen: set[type[Explained]]) -> Iterator[str]:
    """Yield the Markdown of a section, its keys and examples, and of those inside it that were not `seen` yet."""
    if section in seen:
        return
    seen.add(section)
    text, meanings = explained(section)
    yield f"\n### {section.__name__}\n\n{text}\n"
    rows = [_row(name, field, meanings) for name, field in section.__pydantic_fields__.items()]
    yield "\n| key | type | default | meaning |\n| --- | --- | --- | --- |\n" + "\n".join(rows) + "\n"
    for example in EXAMPLES.get(section, ()):
        yield f"\n```yaml\n{example.yaml}\n```\n"
        yield f"```python\n{example.python}\n```\n"
    for field in section.__pydantic_fields__.values():
        for inner in sections_in(field.annotation):
            yield from section_reference(inner, seen)


def _row(name: str, field: FieldInfo, meanings: Mapping[str, str]) -> str:
    key = field.alias or name
    shown = f"`{key}` (Python: `{name}`)" if keyword.iskeyword(key) else f"`{key}`"
    # A table has one line a row; lists of forms stand above it.
    meaning = meanings.get(key, "").split("\n\n")[0].replace("|", "\\|")
    return f"| {shown} | {_type(field.annotation)} | {_default(field)} | {meaning} |"


def _default(field: FieldInfo) -> str:
    """Return the default as YAML, "required" where there is none, and nothing where the key is simply not given."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ((), {}) or isinstance(value, BaseModel):
        return ""
    return f"`{value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}`"


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
