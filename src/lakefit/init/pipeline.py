"""The pipeline file of what was guessed, as text: each guess with its evidence in a comment."""

import contextlib
import json
import os
import re
import shlex
import textwrap
import uuid
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

from lakefit.config.check import is_reserved
from lakefit.config.file import ConfigError
from lakefit.config.sql import ROW, SqlError, parse_schema, quoted
from lakefit.dataset.publish import write_atomically
from lakefit.errors import InputError
from lakefit.init.columns import Guess, guess_columns
from lakefit.init.roles import MIN_CLASS_ROWS, Feature, LabelGuess, Roles, guess_roles, sql_name
from lakefit.init.sample import Sample, format_of, read_sample, sample_table
from lakefit.run.validate import validate

_WIDTH = 120


def init(path: str, label: str | None, output: str | None) -> tuple[Path, Roles, Sample]:
    """Write a pipeline file for a file, folder, glob or catalog table; return its path and what was guessed.

    label: a column or a Spark SQL expression; guessed as well where it is None. output: NAME.yaml by default.

    Raises:
        InputError: nothing there can be read or learned, or the output exists.
    """
    is_table = not os.path.exists(path) and not format_of(path) and re.fullmatch(r"\w+(\.\w+){0,2}", path) is not None
    named = path.rpartition(".")[2] if is_table else Path(path.rstrip("/*")).name.split(".")[0]
    # Two pipelines of the same data must not share a folder of the lake.
    name = _name(Path(output).name.split(".")[0] if output else named)
    target = Path(output or f"{name}.yaml")
    if os.path.lexists(target):
        raise InputError(f"{target} is there already; name another file: --output FILE.")
    sample = sample_table(path) if is_table else read_sample(path)
    own = [column.name for column in sample.columns if is_reserved(column.name)]
    if own:
        raise InputError(f"{path}: the column {own[0]!r} has a name that Lakefit uses itself; give it another.")
    if len(sample.columns) == 1:
        hint = "; are the fields separated by none of comma, semicolon, tab and |?" if sample.text else ""
        raise InputError(
            f"{path}: the data has one column, {sample.columns[0].name!r}; expected a label and what to learn it "
            f"from{hint}"
        )
    guesses, null_word = guess_columns(sample)
    roles = guess_roles(guesses, label, sample)
    given = [*(["--label", label] if label else []), *(["--output", output] if output else [])]
    command = shlex.join(["lakefit", "init", path, *given])
    text = pipeline_text(name, command, target, sample, guesses, null_word, roles)
    _publish(path, target, text)
    return target, roles, sample


def _name(text: str) -> str:
    """Return a name that a pipeline and a table of SQL may have."""
    plain = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_") or "data"
    return plain if not plain[0].isdigit() else f"t_{plain}"


def _publish(path: str, target: Path, text: str) -> None:
    """Write the file where none is yet, looked at as a run would before it takes its name."""
    trial = target.with_name(f".{uuid.uuid4().hex}-{target.name}")
    try:
        write_atomically(trial, text)
        validate(trial)
        os.link(trial, target)
    except ConfigError as error:
        message = str(error).replace(str(trial), f"{target} (not written)")
        raise InputError(f"{path}: no pipeline file that runs could be guessed:\n{message}") from error
    except OSError as error:
        if os.path.lexists(target):
            raise InputError(f"{target} is there already; name another file: --output FILE.") from None
        raise InputError(f"{target} can't be written: {error.strerror}; name another file: --output FILE.") from error
    finally:
        with contextlib.suppress(OSError):
            trial.unlink(missing_ok=True)


def pipeline_text(
    name: str,
    command: str,
    target: Path,
    sample: Sample,
    guesses: Sequence[Guess],
    null_word: str | None,
    roles: Roles,
) -> str:
    """Return the YAML text."""
    lines = [
        *_comment(f"Written by `{command}` from {sample.described}."),
        "# Nothing is guessed at run time: this file says all. Look at the comments first that say CHECK.",
        f"#   lakefit run {shlex.quote(str(target))}",
        f"name: {name}",
        "",
        *_source(name, sample, guesses, null_word),
        "",
        *_clean(guesses),
        *_deduplicate(roles),
        "",
        *_label_rules(roles.label),
        *_expect(sample, guesses, roles),
        "",
        *_split(guesses, roles),
        "",
        *_features(roles),
        "",
        *_label(roles.label),
        "",
        "output: {path: lake}",
        "",
        *_train(sample, roles),
    ]
    return "\n".join(lines) + "\n"


_PLAIN = re.compile(r"(?:[A-Za-z_/]|\.{1,2}/)[\w./*=-]*(?: [\w./*=-]+)*")
_WORDS = frozenset(("true", "false", "null", "yes", "no", "on", "off", "y", "n"))


def flow(value: Any) -> str:
    """Return plain data as YAML on one line; JSON is YAML, and what needs no quotes has none."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{flow(key)}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)


def _comment(text: str, indent: str = "") -> list[str]:
    """Return comment lines; what came out of the data can't end one."""
    clean = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", "\ufffd", text)
    return [
        f"{indent}# {line}"
        for line in textwrap.wrap(clean, _WIDTH - len(indent) - 2, break_long_words=False, break_on_hyphens=False)
    ]


def _filled(items: Iterable[str], indent: str) -> list[str]:
    lines = [indent]
    for item in items:
        if len(lines[-1]) + len(item) + 1 > _WIDTH and lines[-1].strip():
            lines.append(indent)
        lines[-1] += item if not lines[-1].strip() else f" {item}"
    return lines


def _source(name: str, sample: Sample, guesses: Sequence[Guess], null_word: str | None) -> Iterator[str]:
    table = sample.table
    options = dict(table.get("options", {}))
    if null_word is not None:
        options["nullValue"] = null_word
    yield from ("source:", "  tables:", f"    {name}:")
    for note in sample.notes:
        yield from _comment(note, "      ")
    for key in ("path", "table", "format"):
        if key in table:
            yield f"      {key}: {flow(table[key])}"
    if options:
        yield f"      options: {flow(options)}"
    if "schema_drift" in table:
        yield f"      schema_drift: {table['schema_drift']}"
    yield from _evidence(guesses, "      ")
    # Parquet and ORC know their types; what no row can be told apart by (maps) is not read.
    unread = [guess for guess in guesses if not sample.text and guess.kind == "other"]
    if "table" in table:
        # Intervals of months can't leave Spark.
        unread = [guess for guess in unread if guess.sql_type.startswith("INTERVAL")]
    read = [guess for guess in guesses if guess not in unread]
    if sample.text or (unread and "path" in table):
        yield "      schema: >-"
        yield from _listed((_declared(guess) for guess in read if not guess.folder), "        ")
    if any(guess.folder for guess in read):
        yield f"      partitions: {flow(', '.join(_declared(guess) for guess in read if guess.folder))}"
    yield f"  rows: {name}"
    renamed = any(guess.name != guess.source for guess in read)
    if renamed or (unread and "table" in table):
        why = "plain names, which SQL and the model's inputs take without quotes" if renamed else "all but intervals"
        yield f"  query: | # {why}"
        yield f"    SELECT {name}.{ROW},"
        yield from _listed((_selected(guess) for guess in read), "      ")
        yield f"    FROM {name}"


def _declared(guess: Guess) -> str:
    return f"{_ddl_name(guess.source)} {guess.sql_type}"


def _selected(guess: Guess) -> str:
    if guess.name == guess.source:
        return sql_name(guess.name)
    return f"{quoted(guess.source)} AS {sql_name(guess.name)}"


def _listed(items: Iterable[str], indent: str) -> list[str]:
    """Return lines of items with commas between them."""
    *most, last = items
    return _filled([*(f"{item}," for item in most), last], indent)


def _evidence(guesses: Sequence[Guess], indent: str) -> Iterator[str]:
    width = max(len(guess.source) for guess in guesses)
    types = max(len(guess.sql_type) for guess in guesses)
    for guess in guesses:
        distinct = len(guess.counts)
        missing = sum(value is None for value in guess.values)
        nulls = f", {missing:,} NULL" if missing else ""
        shown = f": {', '.join(guess.evidence)}" if guess.evidence else ""
        facts = f"{distinct:,} distinct{nulls}{shown}" if guess.kind != "other" else ", ".join(guess.evidence)
        name, sql_type = _one_line(guess.source), guess.sql_type
        yield f"{indent}# {name:<{min(width, 40)}} {sql_type:<{min(types, 12)}} {_one_line(facts)}"


def _one_line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", "\ufffd", text)[:100]


def _ddl_name(name: str) -> str:
    try:
        plain = re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) and list(parse_schema(f"{name} INT")) == [name]
    except SqlError:
        plain = False
    return name if plain else quoted(name)


def _clean(guesses: Sequence[Guess]) -> Iterator[str]:
    """Yield the steps, equal ones of several columns as one."""
    depth = max(len(guess.steps) for guess in guesses)
    if depth == 0:
        return
    yield "clean: # values, by the row alone, before duplicates are looked for"
    for place in range(depth):
        merged: dict[str, list[Guess]] = {}
        for guess in guesses:
            if len(guess.steps) > place:
                step = guess.steps[place]
                together = f"{step.verb}: {flow(step.arguments)}"
                merged.setdefault(together if step.verb != "derive" else f"{together}#{guess.name}", []).append(guess)
        for together, group in merged.items():
            names = [guess.name for guess in group]
            for guess in group:
                yield from _comment(f"{guess.name}: {guess.steps[place].why}", "  ")
            column = flow(names[0]) if len(names) == 1 else flow(names)
            yield f"  - {{column: {column}, {together.partition('#')[0]}}}"
    yield ""


def _deduplicate(roles: Roles) -> Iterator[str]:
    yield from _comment(roles.key_why)
    section: dict[str, Any] = {}
    if roles.key is not None:
        section["key"] = list(roles.key)
    if roles.keep is not None:
        section["keep"] = roles.keep
    yield f"deduplicate: {flow(section)}"


def _label_rules(label: LabelGuess) -> Iterator[str]:
    if len(label.columns) == 1:
        column = sql_name(label.columns[0])
        yield "require: # rows of which the answer is not known teach nothing"
        yield f"  - {{that: {flow(f'{column} IS NOT NULL')}, because: no label}}"
    else:
        yield "require:"
        yield f"  - {{that: {flow(f'({label.expression}) IS NOT NULL')}, because: no label}}"
    column, enough = sql_name(label.columns[0]), f"{MIN_CLASS_ROWS} rows, which every split needs a part of"
    if label.only:
        values = ", ".join(_literal(value) for value in label.only)
        yield from _comment(f"CHECK: the classes of which the sample promises {enough}; there may be others", "  ")
        yield f"  - {{that: {flow(f'{column} IN ({values})')}, because: rare class}}"
    elif label.rare:
        values = ", ".join(_literal(value) for value in label.rare)
        yield from _comment(f"CHECK: classes with fewer than {enough}", "  ")
        yield f'  - {{that: {flow(f"{column} NOT IN ({values})")}, because: rare class, "null": keep}}'
    yield ""


def _literal(value: Any) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'" if isinstance(value, str) else str(value)


def _expect(sample: Sample, guesses: Sequence[Guess], roles: Roles) -> Iterator[str]:
    yield "expect: # far from what the sample showed: a run that meets other data ends with exit code 5"
    enough = max(1, sample.rows // 2)
    contracts = [f"rows >= {enough}"]
    by_name = {guess.name: guess for guess in guesses}
    for feature in roles.features:
        nulls = by_name[feature.column].nulls
        allowed = min(0.99, round(2 * nulls + 0.05, 2))
        if nulls < 0.5:
            contracts.append(f"null_share({feature.column}) < {allowed:g}")
    yield "  input:"
    yield from (f"    - {flow(text)}" for text in contracts)
    yield "  result:"
    allowed = min(0.99, max(0.2, round(2 * _rejected(sample, guesses, roles) + 0.1, 2)))
    yield f"    - {flow(f'rejected_share < {allowed:g}')}"
    if roles.key is not None:
        yield f"    - {flow(f'unique({sql_name(roles.key[0])})')}"
    yield from _comment("once a version is in use, `drift(column) < 0.25` compares the next ones with it", "    ")


def _rejected(sample: Sample, guesses: Sequence[Guess], roles: Roles) -> float:
    """Return the share of rows in the sample that a run rejects, at most: one may be rejected for several reasons."""
    rejected = sample.misfits
    for guess in guesses:
        needed = guess.name in roles.label.columns or guess.name in (roles.key or ())
        rejected += sum(value is None for value in guess.values) if needed else guess.misfits
        if guess.name in roles.label.columns:
            rejected += sum(guess.counts[value] for value in roles.label.rare)
    return min(1.0, rejected / (sample.rows + sample.misfits))


def _split(guesses: Sequence[Guess], roles: Roles) -> Iterator[str]:
    yield from _time_split(guesses, roles)
    shares = {"train": 0.7, "validation": 0.15, "test": 0.15}
    few = roles.label.fewest < 5 * MIN_CLASS_ROWS
    if few:
        shares = {"train": 0.6, "validation": 0.2, "test": 0.2}
        what = "rows" if roles.label.type == "regression" else "rows of the rarest class"
        yield from _comment(f"CHECK: about {roles.label.fewest:,} {what} in all; more would make the test surer")
    if roles.group is not None:
        yield from _comment(f"{roles.group_why}: all go to one split, or the test would flatter")
        yield f"split: {flow({'by': [roles.group], **(shares if few else {})})}"
    else:
        yield f"split: {flow(shares)}"


def _time_split(guesses: Sequence[Guess], roles: Roles) -> Iterator[str]:
    """Suggest the cuts of a split by the first column of times, where they leave each split a tenth of the rows."""
    dates = [feature.column for feature in roles.features if feature.group == "dates"]
    timed = next((g for g in guesses if g.name in dates and g.nulls == 0 and len(g.counts) >= 30), None)
    if timed is None:
        return
    known = sorted(value if type(value) is date else value.date() for value in timed.values)
    cuts = [known[int(share * (len(known) - 1))] for share in (0.7, 0.85)]
    places = [0, *(bisect_left(known, cut) for cut in cuts), len(known)]
    if min(two - one for one, two in pairwise(places)) < 0.1 * len(known):
        return
    text = f"{{column: {timed.name}, validation: {cuts[0]}, test: {cuts[1]}}}"
    yield from _comment("CHECK: if the model will judge the future, test it on the latest rows instead:")
    yield f"# split: {{time: {text}}}"


def _features(roles: Roles) -> Iterator[str]:
    yield "features: # all that is learned is learned here, from the training split alone"
    for name, why in roles.left_out:
        yield from _comment(f"left out: {name}: {why}", "  ")
    for group in ("numeric", "categorical", "multi_valued", "dates"):
        merged: dict[str, list[Feature]] = {}
        for feature in roles.features:
            if feature.group == group:
                merged.setdefault(json.dumps(feature.settings), []).append(feature)
        if merged:
            yield f"  {group}:"
        for settings, features in merged.items():
            for feature in features:
                yield from _comment(f"{feature.column}: {feature.why}", "    ")
            columns = _listed((flow(feature.column) for feature in features), "        ")
            if len(columns) == 1 and len(columns[0]) < 100:
                yield f"    - columns: [{columns[0].strip()}]"
            else:
                yield from ("    - columns: [", *columns, "      ]")
            yield from (f"      {key}: {flow(value)}" for key, value in json.loads(settings).items())


def _label(label: LabelGuess) -> Iterator[str]:
    if not label.given:
        yield from _comment(f"CHECK: nobody said what to predict; {', '.join(label.columns)} is a guess (--label)")
    yield from _comment(label.why)
    section = {"expression": label.expression, "type": label.type}
    if label.type == "regression":
        section["normalize"] = "standard"
    yield f"label: {flow(section)}"


def _train(sample: Sample, roles: Roles) -> Iterator[str]:
    label = roles.label
    last, loss, metrics = {
        "binary": ("{units: 1, activation: sigmoid}", "binary_crossentropy", "[accuracy, AUC]"),
        "classes": (
            f"{{units: {label.classes}, activation: softmax}}",
            "sparse_categorical_crossentropy",
            "[accuracy]",
        ),
        "regression": ("{units: 1}", "mean_squared_error", "[MeanAbsoluteError]"),
    }[label.type]
    batch = next(size for size in (1024, 256, 64, 32) if sample.rows >= 20 * size or size == 32)
    yield from (
        "train:",
        "  model:",
        "    sequential: # after the inputs: numbers side by side, an embedding for each category",
        "      - Dense: {units: 64, activation: relu}",
        "      - Dropout: {rate: 0.3}",
        "      - Dense: {units: 32, activation: relu}",
        f"      - Dense: {last}",
        "  compile:",
        "    optimizer: {Adam: {learning_rate: 0.001}}",
        f"    loss: {loss}",
        f"    metrics: {metrics}",
        f"  fit: {{epochs: 20, batch_size: {batch}}}",
        "  callbacks:",
        "    - EarlyStopping: {monitor: val_loss, patience: 3, restore_best_weights: true}",
    )
