"""A pipeline file as data that remembers where each of its keys stands."""

import copy
import difflib
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, ReusedAnchorWarning, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from lakefit.errors import InputError

if TYPE_CHECKING:
    from lakefit.dataset.object_path import AnyPath

Key = tuple[str | int, ...]

MAX_DEPTH = 50
MAX_NODES = 200_000
_PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str", "int", "float", "bool", "null"))


@dataclass(frozen=True, slots=True)
class Position:
    """Where a value stands: line and column count from 1; `block` is true for a `|` or `>` text, which starts below."""

    line: int
    column: int
    block: bool = False


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a pipeline file: at which key, what came, what was expected."""

    key: Key
    message: str
    line_in_text: int = 0


class ConfigError(InputError):
    """Every problem found in a pipeline file, each with file, line and column."""

    def __init__(self, source: "PipelineSource", problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(source.describe(problem) for problem in problems))


@dataclass(frozen=True, slots=True)
class PipelineSource:
    """The plain data of a pipeline file (dicts, lists, scalars), with the position of every key."""

    path: str
    data: Mapping[str, Any]
    positions: Mapping[Key, Position]
    text: str
    overridden: Mapping[Key, str] = field(default_factory=dict)

    def describe(self, problem: Problem) -> str:
        """Return `file:line:column: key: message`; a key set by `--set` is named as such instead of by line."""
        at = self._as_written(problem.key)
        name = ".".join(str(part) for part in at)
        prefix = f"{name}: " if name else ""
        above = [at[:length] for length in range(len(at), -1, -1)]
        for key in above:
            if key in self.overridden:
                return f"--set {self.overridden[key]}: {prefix}{problem.message}"
        for key in above:
            if key in self.positions:
                position = self.positions[key]
                if problem.line_in_text and position.block and key == at:
                    return f"{self.path}:{position.line + problem.line_in_text}:1: {prefix}{problem.message}"
                if key != at and (override := self._override_below(at)):
                    return f"--set {override}: {prefix}{problem.message}"
                return f"{self.path}:{position.line}:{position.column}: {prefix}{problem.message}"
        return f"{self.path}: {prefix}{problem.message}"

    def _as_written(self, key: Key) -> Key:
        """Return the key without the places of a list where the file has its one element alone."""
        if not self.positions:
            # Made in Python: there is no file, and a place in a list is all that tells where.
            return key
        written: Key = ()
        for part in key:
            if not isinstance(part, int) or (*written, part) in self.positions:
                written = (*written, part)
        return written

    def _override_below(self, key: Key) -> str | None:
        """Return the `--set` that made a section which the file does not have."""
        return next((text for at, text in self.overridden.items() if at[: len(key)] == key), None)

    def error(self, *problems: Problem) -> ConfigError:
        """Return the problems as one error."""
        return ConfigError(self, problems)


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the closest valid name, or the valid names where none is close."""
    names = list(dict.fromkeys(valid))
    lowered = {candidate.lower(): candidate for candidate in names}
    close = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {lowered[close[0]]!r}?"
    shown = ", ".join(names[:30]) + (", …" if len(names) > 30 else "")
    return f"; expected one of: {shown}" if names else ""


def read_pipeline_source(path: "str | AnyPath", overrides: Sequence[str] = ()) -> PipelineSource:
    """Read a YAML 1.2 file safely (no tags that build objects, no duplicate keys) and apply `section.key=value`s.

    Raises:
        InputError: the file is missing or not readable; ConfigError: it is not valid YAML.
    """
    shown = str(path)
    try:
        text = _read_text(path)
    except FileNotFoundError:
        where = "" if "://" in shown else f" (working directory: {Path.cwd()})"
        raise InputError(f"{shown}: no such pipeline file{where}.") from None
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode()
        byte = f"byte {error.object[error.start]:#04x}"
        raise InputError(f"{_at(shown, before)}: the pipeline file can't be read as UTF-8 text: {byte}.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{shown}: the pipeline file can't be read: {error}.") from error
    positions: dict[Key, Position] = {}
    empty = PipelineSource(shown, {}, positions, text)
    data = _compose(text, empty, positions)
    overridden: dict[Key, str] = {}
    source = PipelineSource(shown, data, positions, text, overridden)
    for override in overrides:
        key, value = _parse_override(override)
        _assign(source, data, key, value, override)
        overridden[key] = override
    return source


def with_values(source: PipelineSource, values: Mapping[str, Any]) -> PipelineSource:
    """Return a source with other values for keys named as for `--set`. Raises InputError: there is no such place."""
    data = copy.deepcopy(dict(source.data))
    for name, value in values.items():
        _assign(source, data, _key_of(name), value, name)
    return replace(source, data=data)


def _read_text(path: "str | AnyPath") -> str:
    if "://" not in str(path):
        return Path(str(path)).read_text(encoding="utf-8")
    from lakefit.dataset.object_path import any_path

    return any_path(path).read_text(encoding="utf-8")


def _compose(text: str, source: PipelineSource, positions: dict[Key, Position]) -> dict[str, Any]:
    yaml = YAML(typ="safe", pure=True)
    try:
        with warnings.catch_warnings(category=ReusedAnchorWarning, action="ignore"):
            node = yaml.compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark is not None else ""
        raise InputError(f"{source.path}{where}: not valid YAML: {error.problem or error.context}.") from error
    except ReaderError as error:
        at = _at(source.path, text[: error.position])
        raise InputError(f"{at}: not valid YAML: the character {chr(error.character)!r} is not allowed.") from None
    except (YAMLError, RecursionError) as error:
        raise InputError(f"{source.path}:1:1: not valid YAML: {error}.") from error
    if not isinstance(node, MappingNode):
        raise InputError(f"{source.path}:1:1: a pipeline file is a mapping with the keys name, source, …; found none.")
    problems: list[Problem] = []
    data = _construct(yaml, node, (), positions, problems)
    if problems:
        raise ConfigError(source, problems)
    assert isinstance(data, dict)
    return data


def _at(path: str, before: str) -> str:
    """Return `file:line:column` of what comes after the text `before`."""
    return f"{path}:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"


def _construct(yaml: YAML, node: Node, key: Key, positions: dict[Key, Position], problems: list[Problem]) -> Any:
    positions.setdefault(key, _position(node))
    if len(key) > MAX_DEPTH or len(positions) > MAX_NODES:
        # An alias can contain itself, or double at every level ("billion laughs").
        if not problems:
            problems.append(
                Problem(key[:1], f"nested deeper than {MAX_DEPTH} levels, or more than {MAX_NODES:,} values")
            )
        return None
    # Dates stay text: only the schema of a table gives a value its type.
    if isinstance(node, ScalarNode) and str(node.tag).endswith(":timestamp"):
        return node.value
    if node.tag not in _PLAIN_TAGS:
        problems.append(Problem(key, f"the tag {node.tag!r} is not allowed: a pipeline file holds plain values only"))
        return None
    if isinstance(node, MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                line = key_node.start_mark.line + 1
                problems.append(Problem(key, f"the key in line {line} is no plain text"))
                continue
            name = str(key_node.value)
            child = (*key, name)
            if name in mapping:
                line = key_node.start_mark.line + 1
                problems.append(Problem(child, f"the key {name!r} stands here and again in line {line}"))
                continue
            start = _position(key_node)
            block = isinstance(value_node, ScalarNode) and value_node.style in ("|", ">")
            positions[child] = Position(start.line, start.column, block)
            mapping[name] = _construct(yaml, value_node, child, positions, problems)
        return mapping
    if isinstance(node, SequenceNode):
        return [_construct(yaml, item, (*key, i), positions, problems) for i, item in enumerate(node.value)]
    try:
        return yaml.constructor.construct_object(node)
    except (YAMLError, ValueError):
        problems.append(Problem(key, f"{node.value!r} does not fit its tag {node.tag!r}"))
        return None


def _position(node: Node) -> Position:
    return Position(node.start_mark.line + 1, node.start_mark.column + 1)


def _parse_override(override: str) -> tuple[Key, Any]:
    name, equals, text = override.partition("=")
    if not equals or not re.fullmatch(r"\w+(\.\w+)*", name):
        raise InputError(f"--set {override}: expected section.key=value, such as train.fit.batch_size=512.")
    key = _key_of(name)
    yaml = YAML(typ="safe", pure=True)
    try:
        node = yaml.compose(text)
    except (YAMLError, RecursionError) as error:
        reason = getattr(error, "problem", None) or str(error)
        raise InputError(f"--set {override}: the value is not valid YAML: {reason}.") from error
    problems: list[Problem] = []
    value = None if node is None else _construct(yaml, node, (), {}, problems)
    if problems:
        raise InputError(f"--set {override}: {problems[0].message}.")
    return key, value


def _key_of(name: str) -> Key:
    """Return the key that `section.key` of `--set` names; numbers are places of a list."""
    return tuple(int(part) if part.isdigit() else part for part in name.split("."))


def _assign(source: PipelineSource, data: dict[str, Any], key: Key, value: Any, override: str) -> None:
    target: Any = data
    for depth, part in enumerate(key[:-1]):
        if isinstance(target, dict):
            if target.get(str(part)) == key[depth + 1]:
                # `optimizer: Adam` is one of Keras's without arguments, to which one comes.
                target[str(part)] = {str(key[depth + 1]): {}}
            elif target.get(str(part)) is None:
                target[str(part)] = {}
            target = target[str(part)]
        elif isinstance(target, list) and isinstance(part, int) and part < len(target):
            target = target[part]
        else:
            at = ".".join(str(p) for p in key[: depth + 1])
            raise InputError(f"--set {override}: {source.path} has no {at} to set a key in.")
    last = key[-1]
    if isinstance(target, dict):
        target[str(last)] = value
    elif isinstance(target, list) and isinstance(last, int) and last < len(target):
        target[last] = value
    else:
        raise InputError(f"--set {override}: {source.path} has no such place.")


def substitute_environment(path: str) -> str:
    """Replace each `${NAME}` in a path by the environment's value.

    Raises:
        ValueError: a variable is not set; the message names it.
    """

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise ValueError(f"the environment variable {name} is not set; set it or write the path out")
        return os.environ[name]

    return re.sub(r"\$\{(\w+)\}", value, path)
