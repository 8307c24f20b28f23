"""What each column is for: the key, the group, the label, a feature, or nothing. Every choice says why."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from lakefit.config.file import nearest
from lakefit.config.sql import SqlError, expression_columns, quoted
from lakefit.errors import InputError
from lakefit.init.columns import Guess, Step
from lakefit.init.sample import Sample

_KEY_NAMES = re.compile(r"(?i:(^|[\W_])(id|key|uuid|guid|no|number|num|index)$|(nr|nummer)$)|[a-z0-9](Id|ID|Key)$")
_CODE_NAMES = re.compile(
    r"(?i:(^|[\W_])(code|sku|class|type|category|kind|cluster|phone|telephone|telefon|mobile|handy|tel|fax|acct|account|"
    r"konto|iban|ssn|ean|isbn|zip|zipcode|plz|postcode|postalcode|vat)\d?$)|[a-z](Code|Phone|Account|Zip)$"
)
# updated_at, last-modified, loadedAt; no upload, no download.
_LOAD_NAMES = re.compile(
    r"(?i:(^|[\W_])(extract(ed)?|load(ed)?|ingest(ed)?|updated?|modified|inserted|imported|synced|etl)([\W_]|$))|"
    r"(^e|[a-z]E)xtractedAt$|(^l|[a-z]L)(oadedAt|oadDate|oadTime)$|(^u|[a-z]U)pdatedAt$|(^m|[a-z]M)odifiedAt$"
)
_ORDER_NAMES = re.compile(r"updat|modif|chang|extract|version|load|ingest|created|_at$|_ts$|timestamp", re.IGNORECASE)
_LABEL_NAMES = re.compile(
    r"label|target|y|class|outcome|response|churn(ed)?|survived|default(ed)?|(is_?)?fraud|converted|click(ed)?|"
    r"purchased?|returned|cancel(l?ed)?|exited|approved|price|(is|has|was|will)_.*",
    re.IGNORECASE,
)
# What one column may tell of the label before it is taken for the label's own trace.
_SUSPICIOUS = 0.999
MIN_CLASS_ROWS = 20
_TOO_FEW = (
    f"too few for training, validation and test to see some each; expected {MIN_CLASS_ROWS} or more: take more rows, "
    "merge classes, or name another label (--label)"
)


@dataclass(frozen=True, slots=True)
class LabelGuess:
    """`columns`: those that the expression names.

    fewest: about so many rows has the rarest class that is kept, or the whole table where there are no classes. rare:
    classes with too few rows for every split to see one. only: the others, where the sample may not show all classes.
    """

    expression: str
    type: Literal["binary", "classes", "regression"]
    columns: tuple[str, ...]
    why: str
    given: bool
    fewest: int
    classes: int = 0
    rare: tuple[Any, ...] = ()
    only: tuple[Any, ...] = ()


@dataclass(slots=True)
class Feature:
    """A column in one group of `features`: its settings there, and why."""

    column: str
    group: Literal["numeric", "categorical", "multi_valued", "dates"]
    settings: dict[str, Any]
    why: str


@dataclass(slots=True)
class Roles:
    """What every column is for. `left_out`: columns that are no feature, and why."""

    label: LabelGuess
    key: tuple[str, ...] | None = None
    keep: str | None = None
    key_why: str = ""
    group: str | None = None
    group_why: str = ""
    features: list[Feature] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)


def guess_roles(guesses: Sequence[Guess], label: str | None, sample: Sample) -> Roles:
    """Return the roles of the sample's columns, of which there is at least one, all of the same length.

    Raises:
        InputError: `label` names no column, or one that nothing can be learned of; or no feature is left.
    """
    if sample.whole and sample.rows < MIN_CLASS_ROWS:
        raise InputError(f"the data has {sample.rows} rows; expected {MIN_CLASS_ROWS} or more to learn and to test.")
    roles = Roles(_given_label(guesses, label, sample) if label is not None else _found_label(guesses, sample))
    others = [guess for guess in guesses if guess.name not in roles.label.columns]
    _guess_key(roles, guesses, sample.whole)
    _guess_group(roles, others)
    of_label = next((guess for guess in guesses if guess.name in roles.label.columns), None)
    for guess in others:
        feature = _feature(guess, roles)
        suspect = _tells_label(guess, of_label, roles.label) if isinstance(feature, Feature) and of_label else None
        if isinstance(feature, Feature) and suspect is None:
            roles.features.append(feature)
        else:
            roles.left_out.append((guess.name, suspect or str(feature)))
    _spare_key(roles, others)
    if not roles.features:
        reasons = "; ".join(f"{name}: {why}" for name, why in roles.left_out[:5])
        raise InputError(f"no column is left to learn {roles.label.expression!r} from ({reasons}).")
    return roles


def sql_name(name: str) -> str:
    """Return a column's name as an SQL expression, quoted where it is a word of SQL."""
    try:
        plain = [found for found, _ in expression_columns(name)] == [name]
    except SqlError:
        plain = False
    return name if plain else quoted(name)


# --- label


def _given_label(guesses: Sequence[Guess], label: str, sample: Sample) -> LabelGuess:
    for guess in guesses:
        if label.lower() in (guess.source.lower(), guess.name.lower()):
            found = _label_of(guess, sample, given=True)
            if isinstance(found, str):
                raise InputError(f"--label {label}: {found}.")
            return found
    names = {guess.name.lower(): guess.name for guess in guesses}
    try:
        named = [name for name, _ in expression_columns(label)]
    except SqlError as error:
        raise InputError(f"--label {label}: neither a column nor a Spark SQL expression: {error}.") from None
    unknown = [name for name in named if name.lower() not in names]
    if unknown or not named:
        wrong = unknown[0] if unknown else label
        raise InputError(f"--label {label}: there is no column {wrong!r}{nearest(wrong, list(names.values()))}.")
    columns = tuple(dict.fromkeys(names[name.lower()] for name in named))
    why = "as given: true and false, or 1 and 0. CHECK the features: an expression is not tried against them"
    return LabelGuess(label, "binary", columns, why, given=True, fewest=sample.total)


def _found_label(guesses: Sequence[Guess], sample: Sample) -> LabelGuess:
    """Return the likeliest label: by its name, else a column of two values, else of few, else the last of numbers."""
    every = [(guess, _label_of(guess, sample, given=False)) for guess in guesses]
    for guess, found in reversed(every):
        if _LABEL_NAMES.fullmatch(guess.source.strip()):
            if isinstance(found, LabelGuess):
                return found
            if _TOO_FEW in found:
                raise InputError(f"{guess.source}: {found}.")
    possible = [(guess, found) for guess, found in every if isinstance(found, LabelGuess)]
    for kind in ("binary", "classes", "regression"):
        for guess, found in reversed(possible):
            if found.type == kind and not (kind == "regression" and _KEY_NAMES.search(guess.source)):
                return found
    raise InputError("no column could be a label: none has two values, few values or numbers. Name one: --label COLUMN")


def _label_of(guess: Guess, sample: Sample, *, given: bool) -> LabelGuess | str:
    """Return how a column is learned, or why it can't be."""
    counts = guess.counts
    distinct = len(counts)
    if guess.kind in ("time", "list", "other"):
        what = {"time": "dates or times", "list": "lists", "other": "nested or binary values"}[guess.kind]
        return f"the column holds {what}; expected two values, classes or numbers"
    if distinct < 2:
        return f"the column has {distinct} distinct value{'' if distinct == 1 else 's'} in the sample"
    column = sql_name(guess.name)
    shares = ", ".join(f"{value!r} {often / counts.total():.1%}" for value, often in counts.most_common(4))
    kept = {value: often for value, often in counts.items() if not _is_rare(often, sample)}
    rare = [value for value in counts if value not in kept]
    fewest = min((kept or counts).values()) * sample.total // sample.rows
    if distinct == 2:
        rarer = min(counts, key=lambda value: (counts[value], str(value)))
        if rare and sample.whole:
            return f"{rarer!r} has {counts[rarer]} rows, {_TOO_FEW}"
        plain = guess.kind == "boolean" or set(counts) == {0, 1}
        expression = column if plain else f"{column} = {_literal(rarer)}"
        fewest = counts[rarer] * sample.total // sample.rows
        return LabelGuess(expression, "binary", (guess.name,), f"two values: {shares}", given, fewest)
    whole = guess.kind != "number" or (guess.sql_type != "DOUBLE" and all(value == int(value) for value in counts))
    if guess.kind == "number" and (not whole or rare or distinct > 10):
        return LabelGuess(
            column, "regression", (guess.name,), f"numbers: {', '.join(guess.evidence)}", given, sample.total
        )
    if guess.kind == "text" and (distinct > 200 or distinct * 3 > counts.total()):
        return f"the column holds {distinct:,} different texts in {counts.total():,} rows; expected classes or numbers"
    if len(kept) < 2:
        return f"of {distinct} classes {len(rare)} have {_TOO_FEW}"
    only = () if sample.whole else tuple(kept)
    why = f"{distinct} values: {shares}"
    return LabelGuess(column, "classes", (guess.name,), why, given, fewest, len(kept), tuple(rare), only)


def _is_rare(often: int, sample: Sample) -> bool:
    """Return whether a class that comes so often in the sample has too few rows in the whole table."""
    return often * sample.total < MIN_CLASS_ROWS * sample.rows or often < 5


def _literal(value: Any) -> str:
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return str(int(value)) if value == int(value) else repr(value)


# --- keys and groups


def _guess_key(roles: Roles, guesses: Sequence[Guess], whole: bool) -> None:
    rows = len(guesses[0].values)
    distinct_rows = len({_row(guesses, place) for place in range(rows)})
    orders = [g for g in guesses if g.kind == "time" and _ORDER_NAMES.search(g.source) and g.nulls == 0]
    order = next((g for g in orders if _LOAD_NAMES.search(g.source)), orders[0] if orders else None)
    # Of rows with equal keys one stays: where no column says which, or more rows are to come, they must be few.
    enough = (0.9 if order is not None else 0.99) if whole else 0.999
    best: tuple[int, bool, Guess] | None = None
    for place, guess in enumerate(guesses):
        if rows < 10 or guess.name in roles.label.columns or not _could_be_key(guess):
            continue
        distinct, named = len(guess.counts), bool(_KEY_NAMES.search(guess.source))
        if distinct < (enough if named else 1) * distinct_rows or not (named or (place == 0 and _numbers_rows(guess))):
            continue
        if best is None or (distinct, named) > best[:2]:
            best = (distinct, named, guess)
    copies = f"{rows - distinct_rows:,} of {rows:,} rows are copies of others"
    if best is None:
        roles.key_why = f"no column tells rows apart; copies in all columns are duplicates: {copies}"
        return
    distinct, _, guess = best
    roles.key = (guess.name,)
    roles.key_why = f"{guess.name} has {distinct:,} distinct values in {rows:,} rows; {copies}"
    if distinct < distinct_rows:
        if order is not None:
            roles.keep = f"last by {order.name}"
        else:
            roles.key_why += "; CHECK which one of rows with equal keys is right: keep: last by <column>"


def _could_be_key(guess: Guess) -> bool:
    if guess.kind not in ("text", "number") or guess.nulls > 0.02:
        return False
    return guess.kind == "text" or all(value == int(value) for value in guess.counts)


def _numbers_rows(guess: Guess) -> bool:
    """Return whether distinct values are numbers or codes of rows, not names or amounts: 1, 2, 3, or A17, A18."""
    if guess.kind == "text":
        return all(re.search(r"\d", value) and not re.search(r"\s", value) for value in guess.counts)
    known = sorted(guess.counts)
    steps = sum(two - one == 1 for one, two in pairwise(known))
    return steps >= 0.8 * (len(known) - 1) and not re.search("year|jahr", guess.source, re.IGNORECASE)


def _spare_key(roles: Roles, guesses: Sequence[Guess]) -> None:
    """Learn from the key where nothing else is left and it is a number: then it was a measure."""
    for guess in guesses:
        if not roles.features and guess.name in (roles.key or ()) and guess.kind == "number":
            roles.features.append(_numeric_feature(guess, len(guess.counts)))
            roles.left_out = [(name, why) for name, why in roles.left_out if name != guess.name]
            roles.key, roles.keep = None, None
            roles.key_why = f"{guess.name} is all there is to learn from, so it is no key; copies are duplicates"


def _row(guesses: Sequence[Guess], place: int) -> tuple[Any, ...]:
    return tuple(
        str(value) if isinstance(value, list | dict) else value for value in (guess.values[place] for guess in guesses)
    )


def _guess_group(roles: Roles, guesses: Sequence[Guess]) -> None:
    for guess in guesses:
        if guess.name in (roles.key or ()) or guess.kind not in ("text", "number") or guess.nulls > 0.02:
            continue
        counts = guess.counts
        distinct, rows = len(counts), len(guess.values)
        if _KEY_NAMES.search(guess.source) and 50 <= distinct <= rows / 1.5 and max(counts.values()) < 0.1 * rows:
            roles.group = guess.name
            roles.group_why = f"rows of one {guess.name} are alike ({distinct:,} of them in {rows:,} rows)"
            return


# --- features


def _feature(guess: Guess, roles: Roles) -> Feature | str:
    """Return how a column becomes a feature, or why it does not."""
    counts = guess.counts
    rows, distinct = len(guess.values), len(counts)
    if guess.kind == "other":
        return f"{', '.join(guess.evidence)} values; take what you need out of it in source.query"
    if guess.name in (roles.key or ()):
        return "the key tells rows apart, and says nothing of new ones"
    if guess.name == roles.group:
        return "no group of the test split is known in training"
    if distinct == 0:
        return "no value"
    if distinct == 1:
        return f"always {next(iter(counts))!r}"
    if guess.nulls > 0.95:
        return f"{guess.nulls:.1%} NULL"
    if guess.kind == "list":
        lengths = [len(value) for value in guess.values if value is not None]
        most = max(1, min(16, sorted(lengths)[int(0.99 * (len(lengths) - 1))]))
        return Feature(
            guess.name, "multi_valued", {"max_values": most}, f"lists of up to {max(lengths)} of {distinct:,} values"
        )
    if guess.kind == "time":
        if _LOAD_NAMES.search(guess.source) or roles.keep == f"last by {guess.name}":
            return "says when the row was written, which new rows don't have yet"
        return _date_feature(guess)
    if guess.kind == "text":
        return _text_feature(guess, distinct, counts, rows)
    if guess.kind == "boolean":
        return Feature(guess.name, "categorical", {}, _shares(counts))
    whole = all(value == int(value) for value in counts)
    if whole and (_KEY_NAMES.search(guess.source) or _CODE_NAMES.search(guess.source)):
        if distinct > 0.2 * rows:
            return f"{distinct:,} different numbers in {rows:,} rows, by its name no measure"
        if guess.sql_type in ("FLOAT", "DOUBLE"):
            # Categories are text or integers.
            guess.steps.append(Step("derive", f"CAST({sql_name(guess.name)} AS BIGINT)", "by its name a code"))
        return Feature(guess.name, "categorical", _vocabulary(counts), f"by its name a code: {distinct:,} values")
    return _numeric_feature(guess, distinct)


def _text_feature(guess: Guess, distinct: int, counts: Counter[Any], rows: int) -> Feature | str:
    known = counts.total()
    words = sum(len(value.split()) * often for value, often in counts.items()) / known
    if distinct == known and known >= 20:
        return f"all {distinct:,} values differ" + ("; free text needs a model of its own" if words >= 4 else "")
    if words >= 4 and distinct > 0.3 * known:
        return f"free text ({words:.0f} words on average), which needs a model of its own"
    if distinct > 0.5 * known:
        return f"{distinct:,} different values in {known:,} rows: too few rows each to learn from"
    return Feature(guess.name, "categorical", _vocabulary(counts), f"{distinct:,} values: {_shares(counts)}")


def _vocabulary(counts: Counter[Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if min(counts.values()) < 5 and len(counts) > 10:
        settings["min_count"] = 5
    if len(counts) > 1000:
        settings["max_size"] = 1000
    return settings


def _numeric_feature(guess: Guess, distinct: int) -> Feature:
    known = [float(value) for value in guess.values if value is not None]
    settings: dict[str, Any] = {"fill": "median"}
    why = ", ".join(guess.evidence)
    if guess.nulls:
        settings["indicator"] = True
        why += f"; {guess.nulls:.1%} NULL"
    skew = _skewness(known)
    if distinct > 10 and abs(skew) > 2:
        settings["normalize"] = "yeo_johnson"
        why += f"; skewness {skew:.1f}"
    return Feature(guess.name, "numeric", settings, why)


def _skewness(values: Sequence[float]) -> float:
    """Return the third standardized moment; 0 for a constant."""
    size = max(abs(value) for value in values) or 1.0
    scaled = [value / size for value in values]
    mean = math.fsum(scaled) / len(scaled)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in scaled) / len(scaled))
    return math.fsum(((value - mean) / deviation) ** 3 for value in scaled) / len(scaled) if deviation else 0.0


def _date_feature(guess: Guess) -> Feature:
    known = [value for value in guess.values if value is not None]
    parts = []
    monthly = all(value.day == 1 for value in known)
    if monthly or (max(known) - min(known)).days >= 90:
        parts.append("month")
    if not monthly:
        parts.append("weekday")
    if any(getattr(value, "hour", 0) for value in known):
        parts.append("hour")
    return Feature(guess.name, "dates", {"parts": parts, "cyclical": True}, ", ".join(guess.evidence))


def _shares(counts: Counter[Any]) -> str:
    shown = [f"{str(value)[:30]!r} {often / counts.total():.0%}" for value, often in counts.most_common(3)]
    return ", ".join(shown)


# --- what tells the label


def _tells_label(guess: Guess, label: Guess, kind: LabelGuess) -> str | None:
    """Return why a column is taken for a trace of the label itself; None where it is not."""
    pairs = [
        (value, truth)
        for value, truth in zip(guess.values, label.values, strict=True)
        if value is not None and truth is not None and not isinstance(value, list)
    ]
    if len(pairs) < 100 or len(kind.columns) > 1:
        return None
    how = "CHECK: it tells the label almost without error"
    if kind.type == "regression":
        if guess.kind != "number" or label.kind != "number":
            return None
        known = abs(_correlation([(float(value), float(truth)) for value, truth in pairs]))
        return f"{how} (correlation {known:.5f}); known only afterwards?" if known >= _SUSPICIOUS else None
    truths = Counter(truth for _, truth in pairs)
    if max(truths.values()) > 0.99 * len(pairs):
        return None
    by_value: dict[Any, Counter[Any]] = {}
    for value, truth in pairs:
        by_value.setdefault(value, Counter())[truth] += 1
    repeated = [counts for counts in by_value.values() if counts.total() > 1]
    seen = sum(counts.total() for counts in repeated)
    right = sum(max(counts.values()) for counts in repeated)
    if seen >= 0.5 * len(pairs) and right >= _SUSPICIOUS * seen:
        return f"{how} ({right:,} of {seen:,} rows); known only afterwards?"
    if guess.kind == "number" and len(truths) == 2:
        right = _best_cut(pairs)
        if right >= _SUSPICIOUS * len(pairs):
            return f"{how} (one cut: {right:,} of {len(pairs):,} rows); known only afterwards?"
    return None


def _correlation(pairs: Sequence[tuple[float, float]]) -> float:
    means = [math.fsum(pair[side] for pair in pairs) / len(pairs) for side in (0, 1)]
    products = [
        math.fsum((pair[a] - means[a]) * (pair[b] - means[b]) for pair in pairs) for a, b in ((0, 1), (0, 0), (1, 1))
    ]
    scale = math.sqrt(products[1]) * math.sqrt(products[2])
    return products[0] / scale if scale else 0.0


def _best_cut(pairs: Sequence[tuple[Any, Any]]) -> int:
    """Return how many of the pairs one cut of the numbers puts on the side of their truth, of two truths."""
    ordered = sorted(pairs, key=lambda pair: pair[0])
    one = ordered[0][1]
    ones = sum(truth == one for _, truth in ordered)
    left = best = 0
    for place, (value, truth) in enumerate(ordered):
        left += truth == one
        if place + 1 < len(ordered) and ordered[place + 1][0] == value:
            continue
        right = left + (len(ordered) - place - 1) - (ones - left)
        best = max(best, right, len(ordered) - right)
    return best
