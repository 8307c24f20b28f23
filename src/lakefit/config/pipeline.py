"""A whole pipeline file, validated into frozen types."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from lakefit.config.clean import Clean
from lakefit.config.duration import Duration, seconds
from lakefit.config.evaluate import Evaluate
from lakefit.config.expect import Expect
from lakefit.config.features import Features
from lakefit.config.file import Key, PipelineSource, Problem, nearest, read_pipeline_source
from lakefit.config.hooks import Hooks
from lakefit.config.rows import Deduplicate, Label, Reject, Require, Split
from lakefit.config.sections import Section
from lakefit.config.source import Name, PathText, Source
from lakefit.config.train import Train
from lakefit.config.tune import Tune

if TYPE_CHECKING:
    from lakefit.dataset.object_path import AnyPath


class Output(Section):
    """Where everything goes.

    path: a folder; a pipeline has a folder of its name in it. `${NAME}` is replaced. rows_per_file: about so many rows
    of all splits together make a file. rows_per_group: so many rows make a row group. layout: `wide`, a column a
    feature, which any tool reads; `packed`, all numbers of a row in one value and all categories in another, which is
    faster to feed and takes more room (docs/feed.md). keep: so many datasets, runs, artifacts and studies stay (all
    where it is not given); never removed is what is in use, what a run that stays names, and what is younger than
    `grace`. grace: "1 day", "12 hours".
    """

    path: PathText
    rows_per_file: Annotated[int, Field(ge=1)] = 1_000_000
    # Measured: groups of 100 k rows are read faster than 10 k and 1 M.
    rows_per_group: Annotated[int, Field(ge=1)] = 100_000
    layout: Literal["wide", "packed"] = "wide"
    keep: Annotated[int, Field(ge=1)] | None = None
    grace: Duration = "1 day"

    @property
    def grace_seconds(self) -> float:
        return seconds(self.grace)


class Score(Section):
    """What `lakefit run` scores once the model is exported; `lakefit score --input --output` scores anything else.

    input: a file, a folder or a glob, read as the followed table is. output: a folder, replaced when all rows are
    scored. keys: the columns beside each probability; the deduplication key where none are given.
    """

    input: PathText
    output: PathText
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """A reason to reject a row, and the predicate (None for a mark that `clean` has set) that is true where it holds.

    null: what a predicate that is NULL means for the row. unscorable: without what is missing then, no model can say
    anything of the row.
    """

    reason: str
    predicate: str | None
    null: Literal["keep", "reject"]
    unscorable: bool = False


class Pipeline(Section):
    """The sections of a pipeline file, in the order of the flow.

    name: names the pipeline and its folder in `output.path`; letters, digits and `_`.
    """

    name: Name
    source: Source
    clean: tuple[Clean, ...] = ()
    deduplicate: Deduplicate | None = None
    reject: tuple[Reject, ...] = ()
    require: tuple[Require, ...] = ()
    expect: Expect = Field(default_factory=Expect)
    split: Split = Field(default_factory=Split)
    features: Features
    label: Annotated[tuple[Label, ...], Field(min_length=1)]
    output: Output
    train: Train
    tune: Tune | None = None
    evaluate: Evaluate = Field(default_factory=Evaluate)
    score: Score | None = None
    hooks: Hooks = Field(default_factory=Hooks)

    @field_validator("label", mode="before")
    @classmethod
    def _lists_its_labels(cls, data: Any) -> Any:
        return [data] if isinstance(data, dict | Section) else data

    @model_validator(mode="after")
    def _names_each_label(self) -> "Pipeline":
        names = [label.name.lower() for label in self.label]
        taken = next((name for name in names if name in ("numeric", "categorical", "weight")), None)
        if taken is not None:
            raise ValueError(f"label: {taken!r} is the name of something else in a batch; choose another name")
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"label: of several labels each needs a name of its own; {twice!r} comes twice")
        return self

    @property
    def marks(self) -> tuple[Rule, ...]:
        """The rules that `clean` breaks itself: values that do not parse, images that can't be read."""
        return tuple(
            Rule(f"{column}{fault}", None, "keep", unscorable=step.image is not None)
            for step in self.clean
            for column in step.columns
            for fault in step.faults
        )

    @property
    def rules(self) -> tuple[Rule, ...]:
        """What rejects a row, in the order in which it is asked: values that don't parse, then reject, then require."""
        rejects = [Rule(rule.because, rule.when, rule.null) for rule in self.reject]
        requires = [Rule(rule.because, f"NOT ({rule.that})", rule.null) for rule in self.require]
        return (*self.marks, *rejects, *requires)

    def dump(self, *sections: str) -> dict[str, Any]:
        """Return the named sections (all where none is named) as plain JSON data, defaults included."""
        return self.model_dump(mode="json", by_alias=True, include=set(sections) if sections else None)


def load_pipeline(path: "str | AnyPath", overrides: tuple[str, ...] = ()) -> tuple[Pipeline, PipelineSource]:
    """Read and validate a pipeline file; no file that it names is touched.

    Raises:
        ConfigError: every problem of the file at once, each with line and column.
    """
    source = read_pipeline_source(path, overrides)
    return validate_pipeline(source), source


def validate_pipeline(source: PipelineSource) -> Pipeline:
    """Return the checked pipeline of data already read. Raises ConfigError as `load_pipeline` does."""
    try:
        # JSON mode is strict about scalars and still takes lists for tuples.
        return Pipeline.model_validate_json(json.dumps(source.data), strict=True)
    except ValidationError as error:
        raise source.error(*_problems(error, source.data)) from None


def _problems(error: ValidationError, data: Any) -> list[Problem]:
    problems: dict[Key, Problem] = {}
    for detail in error.errors(include_url=False):
        key = _existing_key(detail["loc"], data)
        kind = detail["type"]
        if kind == "extra_forbidden":
            name = str(key[-1])
            message = f"unknown key{nearest(name, _valid_keys(key[:-1]))}"
        elif kind == "missing":
            missing = ".".join(str(part) for part in detail["loc"][len(key) :])
            message = f"the key {missing!r} is missing"
        else:
            text = detail["msg"].removeprefix("Value error, ")
            came = f", found {_shown(detail['input'])}" if kind != "value_error" else ""
            message = f"{text[:1].lower()}{text[1:]}{came}"
        if key in problems and kind not in ("missing", "extra_forbidden"):
            # The alternatives of a union, told together.
            message = f"{problems[key].message.split(', found')[0]}; or {message}"
        problems[key if kind != "missing" else (*key, *detail["loc"][len(key) :])] = Problem(key, message)
    return list(problems.values())


def _existing_key(location: tuple[int | str, ...], data: Any) -> Key:
    """Drop the parts of pydantic's location that name a union's member rather than a key of the file."""
    key: list[int | str] = []
    here = data
    for part in location:
        inside = isinstance(here, dict) and part in here
        if inside or (isinstance(here, list) and isinstance(part, int) and part < len(here)):
            key.append(part)
            here = here[part]
    return tuple(key)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "…"


def _valid_keys(key: Key) -> list[str]:
    """Return the keys that the section at `key` may have."""
    models: list[Any] = [Pipeline]
    for part in key:
        models = [inner for model in models for inner in _inner_models(model, part)]
    names: list[str] = []
    for model in models:
        if isinstance(model, type) and issubclass(model, BaseModel):
            names += [field.alias or name for name, field in model.model_fields.items()]
    return names


def _inner_models(model: Any, part: str | int) -> list[Any]:
    if isinstance(model, type) and issubclass(model, BaseModel):
        for name, field in model.model_fields.items():
            if part in (name, field.alias):
                return _members(field.annotation)
        return []
    return [model]


def _members(annotation: Any) -> list[Any]:
    if isinstance(annotation, type) and not get_args(annotation):
        return [annotation]
    return [member for argument in get_args(annotation) for member in _members(argument)]
