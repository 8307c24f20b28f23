"""A wrong pipeline file is refused with file, line, column and the nearest name; a right one is frozen."""

from collections.abc import Callable
from pathlib import Path

import pydantic
import pytest

from lakefit.config import ConfigError, load_pipeline
from lakefit.config.sql import kind_of, query_columns
from lakefit.errors import InputError
from lakefit.run.validate import validate
from shop import ROOT, write_shop

Refusal = Callable[..., list[str]]


@pytest.fixture
def refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refusal:
    """Change the shop's pipeline file by (old, new) pairs; return the lines of the refusal."""
    path = write_shop(tmp_path, rows=5)
    monkeypatch.chdir(tmp_path)

    def run(*changes: tuple[str, str], overrides: tuple[str, ...] = ()) -> list[str]:
        text = path.read_text(encoding="utf-8")
        for old, new in changes:
            assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the file"
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InputError) as refused:
            validate("shop.yaml", overrides)
        assert refused.value.exit_code == 2
        return str(refused.value).splitlines()

    return run


def at(fragment: str, key: str) -> str:
    """Return `shop.yaml:line:column: ` of `key`, which stands once in `fragment`, which stands once in the file."""
    text = Path("shop.yaml").read_text(encoding="utf-8")
    assert text.count(fragment) == 1
    assert fragment.count(key) == 1
    before = text[: text.index(fragment) + fragment.index(key)]
    return f"shop.yaml:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}: "


# change; where the error points (a fragment of the changed file, the key in it); what it says
WRONG = {
    "unknown key": (
        ("fit: {epochs", "fit: {epoch"),
        ("fit: {epoch: 3", "epoch"),
        "unknown key; did you mean 'epochs'?",
    ),
    "missing key": (("fit: {epochs: 3, ", "fit: {"), ("  fit: {", "fit"), "the key 'epochs' is missing"),
    "unknown section": (
        ("deduplicate:", "dedupe:"),
        ("dedupe: {", "dedupe"),
        "unknown key; did you mean 'deduplicate'?",
    ),
    "text for a number": (("epochs: 3", 'epochs: "3"'), ('epochs: "3"', "epochs"), 'valid integer, found "3"'),
    "fraction for an integer": (("epochs: 3", "epochs: 3.5"), ("epochs: 3.5", "epochs"), "valid integer, found 3.5"),
    "integer for a boolean": (("indicator: true", "indicator: 1"), ("indicator: 1", "indicator"), "valid boolean"),
    "out of range": (("batch_size: 64", "batch_size: 0"), ("batch_size: 0", "batch_size"), "found 0"),
    "misspelt choice": (("[trim]", "[trimm]"), ("text: [trimm]", "trimm"), 'found "trimm"'),
    "shares": (("train: 0.6", "train: 0.7"), ("split: {by", "split"), "must add up to 1, not 1.1"),
    "duplicate key": (("name: shop", "name: shop\nname: two"), ("name: shop\n", "name"), "and again in line 3"),
    "tag": (("name: shop", "name: !!python/name:os.system x"), ("name: !!p", "name"), "plain values only"),
    "binary": (("rate: 0.2", "rate: !!binary aGk="), ("rate: !!b", "rate"), "plain values only"),
    "tagged mapping": (("fit: {ep", "fit: !object {ep"), ("  fit: !object", "fit"), "plain values only"),
    "endless alias": (("name: shop", "name: &a [*a]"), ("name: &a", "name"), "nested deeper"),
    "key no text": (("fit: {epochs", "fit: {[1]: 2, epochs"), ("  fit: {[1]", "fit"), "no plain text"),
    "numeric column": (("[amount, ", "[amuont, "), ("[amuont, ", "amuont"), "'amuont'; did you mean 'amount'?"),
    "categorical column": (("columns: [city]", "columns: [citty]"), ("[citty]", "citty"), "did you mean 'city'?"),
    "split column": (("{by: [day]", "{by: [dey]"), ("{by: [dey]", "dey"), "unknown column 'dey'; did you mean 'day'?"),
    "key column": (("{key: [id]", "{key: [ids]"), ("{key: [ids]", "ids"), "unknown column 'ids'; did you mean 'id'?"),
    "keep column": (("last by stamp", "last by stmp"), (", keep: last", "keep"), "did you mean 'stamp'?"),
    "keep": (("last by stamp", "newest"), ("keep: newest", "keep"), 'found "newest"'),
    "clean column": (("{column: city", "{column: cty"), ("{column: cty", "column"), "did you mean 'city'?"),
    "clean text of numbers": (
        ("{column: city", "{column: day"),
        ("{column: day", "column"),
        "holds numbers; expected text",
    ),
    "reject column": (
        ('"amount < 0"', '"amunt < 0"'),
        ("{when: ", "when"),
        "unknown column 'amunt'; did you mean 'amount'?",
    ),
    "reject syntax": (('"amount < 0"', '"amount <"'), ("{when: ", "when"), "not valid SQL"),
    "reject no condition": (
        ('"amount < 0"', '"amount"'),
        ("{when: ", "when"),
        "'amount' is a number; expected a condition",
    ),
    "reject of other rows": (
        ('"amount < 0"', '"amount < avg(amount)"'),
        ("{when: ", "when"),
        "'AVG(amount)' is an aggregate: here an expression sees one row alone",
    ),
    "reject by a query": (('"amount < 0"', '"id IN (SELECT 3)"'), ("{when: ", "when"), "is a query"),
    "reason twice": (
        ("clean:\n", "require: [{that: amount < 9, because: refunded}]\nclean:\n"),
        ("that: amount < 9, because", "because"),
        "the reason 'refunded' is given twice",
    ),
    "contract of text": (
        ("clean:\n", "expect: {result: [mean(city) > 1]}\nclean:\n"),
        ("[mean(", "mean("),
        "the column 'city' holds text; expected numbers, dates or times",
    ),
    "label column": (("late > 0", "lait > 0"), ("expression: lait", "expression"), "did you mean 'late'?"),
    "label as feature": (("[amount, weight", "[late, weight"), ("[late, ", "late"), "gives the answer away"),
    "feature twice": (
        ("[amount, weight", "[amount, amount"),
        ("features:\n", "features"),
        "the prepared column 'amount' would come twice",
    ),
    "query column": (
        ("c.size", "c.sise"),
        ("    SELECT o.*, c.sise", "    S"),
        "unknown column 'sise'; did you mean 'size'?",
    ),
    "query table": (
        ("JOIN cities", "JOIN citys"),
        ("    FROM orders", "    F"),
        "unknown table 'citys'; did you mean 'cities'?",
    ),
    "rows": (
        ("rows: orders", "rows: order"),
        ("rows: order\n", "rows"),
        "unknown table 'order'; did you mean 'orders'?",
    ),
    "schema": (("late INT", "late INT INT INT"), ('schema: "id', "schema"), "not a list of columns"),
    "no file": (("orders-*.csv", "odrers-*.csv"), ("path: odrers", "path"), "no file matches 'odrers-*.csv'"),
    "environment": (
        ("path: lake", "path: '${LAKEFIT_NOT_SET}/lake'"),
        ("path: '${", "path"),
        "LAKEFIT_NOT_SET is not set",
    ),
    "two objects": (
        ("{Dense: {units: 8, activation: relu}}", "{Dense: {}, Dropout: {}}"),
        ("sequential: [{Dense: {},", "{Dense: {}"),
        "at most 1",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_refusal_points_at_line_and_column_and_says_what_was_meant(refusal: Refusal, case: str) -> None:
    change, place, says = WRONG[case]
    lines = refusal(change)
    where = at(*place)
    if case.startswith("query"):
        # A place inside of a text: its line, and no column.
        where = where.rsplit(":", 2)[0] + ":1: "
    assert any(line.startswith(where) and says in line for line in lines), f"{where}…{says}…\n" + "\n".join(lines)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("weight DOUBLE", "weight STRING"), "the column 'weight' holds text; expected numbers"),
        (("o.*,", "o.id, o.day, o.city, o.amount, o.weight, o.stamp, o.late,"), "does not hand _row through"),
        (("c.size", "c.size, o.id AS _split"), "the column name '_split' is Lakefit's own"),
        (("c.size", "c.size, o.id AS amount"), "'amount' comes out of the query twice"),
        (("day INT, ", "dai INT, "), "column 2 of orders-0.csv is 'day', the schema says 'dai'"),
        (("weight, size]", "amount_missing]"), "the prepared column 'amount_missing' would come twice"),
    ],
)
def test_what_columns_hold_is_known_without_spark(refusal: Refusal, change: tuple[str, str], says: str) -> None:
    assert any(says in line for line in refusal(change))


def test_a_hint_of_a_query_names_a_table_by_its_alias() -> None:
    tables = {"orders": {"city": "STRING"}, "cities": {"city": "STRING", "size": "DOUBLE"}}
    query = "SELECT /*+ BROADCAST(c) */ o.*, c.size FROM orders o LEFT JOIN cities c ON c.city = o.city"
    assert query_columns(query, tables, "orders") == {"city": "text", "size": "number"}


def test_every_error_is_told_at_once_each_in_its_line(refusal: Refusal) -> None:
    lines = refusal(("epochs: 3", "epochs: x"), ("seed: 3", "sead: 3"), ("min_count: 2", "min_count: 0"))
    assert [line.split(": ")[1] for line in lines] == [
        "split.sead",
        "features.categorical.min_count",
        "train.fit.epochs",
    ]
    assert len({line.split(":")[1] for line in lines}) == 3


def test_every_wrong_column_is_told_at_once(refusal: Refusal) -> None:
    lines = refusal(("{by: [day]", "{by: [dey]"), ("[amount, ", "[amuont, "), ("late > 0", "lait > 0"))
    assert [line.split(": ")[1] for line in lines] == ["split.by.0", "label.expression", "features.numeric.columns.0"]


@pytest.mark.parametrize(
    "text", ["name: [", "name: 'a", "a: b: c", "name: \x00", "[" * 600, "- a\n- b\n", "", "a: 1\n---\nb: 2"]
)
def test_what_is_no_yaml_mapping_is_refused_with_its_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"bad\.yaml") as refused:
        load_pipeline(path)
    assert "YAML" in str(refused.value) or "mapping" in str(refused.value)


def test_bad_yaml_is_told_with_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("name: x\nsource: {a: [1, 2}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"bad\.yaml:2:18: not valid YAML"):
        load_pipeline(path)


def test_a_missing_file_and_one_that_is_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such pipeline file"):
        load_pipeline(tmp_path / "nowhere.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(InputError, match="can't be read as UTF-8 text"):
        load_pipeline(tmp_path / "latin.yaml")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        (
            "train.fit.batch_siz=1",
            "--set train.fit.batch_siz=1: train.fit.batch_siz: unknown key; did you mean 'batch_size'?",
        ),
        (
            "train.fit.epochs=x",
            '--set train.fit.epochs=x: train.fit.epochs: input should be a valid integer, found "x"',
        ),
        ("trian.fit.epochs=1", "--set trian.fit.epochs=1: trian: unknown key; did you mean 'train'?"),
        ("split.by=[dey]", "--set split.by=[dey]: split.by.0: unknown column 'dey'; did you mean 'day'?"),
        ("name", "--set name: expected section.key=value"),
        ("=3", "--set =3: expected section.key=value"),
        ("name=[", "--set name=[: the value is not valid YAML"),
        ("name=!!python/name:os.system x", "plain values only"),
        ("name=2013-01-01", 'found "2013-01-01"'),
        ("name={a: 1, a: 2}", "the key 'a' stands here and again"),
        ("split.by.7=day", "has no such place"),
        ("name.first.second=x", "has no name.first to set a key in"),
    ],
)
def test_a_bad_set_is_refused_by_its_own_words(refusal: Refusal, override: str, says: str) -> None:
    lines = refusal(overrides=(override,))
    assert any(says in line for line in lines), lines


LISTS = 'clean=[{column: city, parse: {as: list, separator: "|"}}]'


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("label.type=classes", "label.classes=[a, b, a]"), "label: classes: 'a' stands twice"),
        (("label.class_weights={a: 1, b: 2}",), "of 0 and 1 (or false and true), not of a, b"),
        (("label.class_weights={0: 1, false: 2}",), "of 0 and 1 (or false and true), not of 0, false"),
        (("features.statistics.from=1234567890123456",), "quote the fingerprint: YAML takes it for a number"),
        (("features.statistics.from=12345678e0123456",), "quote the fingerprint: YAML takes it for a number"),
        (("features.categorical={columns: [city], hash_buckets: 2147483646}",), "less than or equal to 2147483645"),
        (("split={time: {column: day, validation: 3, test: 5, gap: -1}}",), "gap: expected 0 or more, not -1"),
        ((LISTS, "split={stratify: [city]}"), "the column 'city' holds lists; expected numbers, booleans, text"),
        ((LISTS, "split={by: [city]}"), "the column 'city' holds lists; expected numbers, booleans, text"),
        ((LISTS, "deduplicate.keep=last by city"), "the column 'city' holds lists; expected numbers, booleans"),
        (("features.multi_valued={columns: [day], max_values: 2}",), "holds numbers; expected lists of text"),
    ],
)
def test_what_could_not_be_learned_is_refused_before_anything_starts(
    refusal: Refusal, overrides: tuple[str, ...], says: str
) -> None:
    lines = refusal(overrides=overrides)
    assert any(says in line for line in lines), lines


@pytest.mark.parametrize(
    ("sql_type", "kind"),
    [
        ("ARRAY<STRING>", "list"),
        ("ARRAY<BIGINT>", "list"),
        ("ARRAY<STRUCT<a: INT>>", "other"),
        ("ARRAY<ARRAY<STRING>>", "other"),
        ("STRUCT<a: INT>", "other"),
        ("MAP<STRING, INT>", "other"),
        ("BINARY", "bytes"),
    ],
)
def test_lists_are_told_from_nested_values(sql_type: str, kind: str) -> None:
    assert kind_of(sql_type) == kind


def test_classes_are_text_also_where_they_are_written_as_integers_or_booleans(tmp_path: Path) -> None:
    path = write_shop(tmp_path, rows=5)
    classes, _ = load_pipeline(path, ("label.type=classes", "label.classes=[0, 1, true]"))
    assert classes.label[0].classes == ("0", "1", "true")
    for weights in ("{false: 1, true: 5}", "{0: 1, 1: 5}", "{'1': 5, '0': 1}"):
        weighed, _ = load_pipeline(path, (f"label.class_weights={weights}",))
        assert weighed.label[0].binary_weights == (1.0, 5.0)


def test_a_good_set_changes_its_key_alone(tmp_path: Path) -> None:
    path = write_shop(tmp_path, rows=5)
    plain, _ = load_pipeline(path)
    changed, _ = load_pipeline(path, ("train.fit.epochs=7", "split.by=[day, city]", "reject.0.because=other words"))
    assert (changed.train.fit.epochs, changed.split.by) == (7, ("day", "city"))
    assert changed.reject[0].because == "other words"
    assert changed.train.fit.batch_size == plain.train.fit.batch_size
    assert changed.features == plain.features


def test_environment_variables_stand_in_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_shop(tmp_path, rows=5)
    monkeypatch.setenv("LAKEFIT_TEST_ROOT", "/somewhere else")
    text = path.read_text(encoding="utf-8").replace("path: lake", "path: '${LAKEFIT_TEST_ROOT}/lake'")
    path.write_text(text, encoding="utf-8")
    assert load_pipeline(path)[0].output.path == "/somewhere else/lake"


def test_a_pipeline_is_frozen(tmp_path: Path) -> None:
    pipeline, _ = load_pipeline(write_shop(tmp_path, rows=5))
    for section, key in ((pipeline, "name"), (pipeline.split, "seed"), (pipeline.features.numeric[0], "columns")):
        with pytest.raises(pydantic.ValidationError, match="frozen"):
            setattr(section, key, "x")
    assert isinstance(pipeline.reject, tuple)
    assert isinstance(pipeline.source.tables["orders"].paths, tuple)


def test_the_shop_and_a_date_as_text_are_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_shop(tmp_path, rows=5)
    text = path.read_text(encoding="utf-8").replace("because: refunded", "because: 2013-01-01")
    path.write_text(text, encoding="utf-8")
    valid = validate(path)
    assert valid.pipeline.reject[0].because == "2013-01-01"
    assert [file.name for file in valid.inputs["orders"]] == ["orders-0.csv", "orders-1.csv"]


def test_the_flights_pipeline_names_only_columns_that_its_query_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "data/flights/raw"
    raw.mkdir(parents=True)
    pipeline, _ = load_pipeline(ROOT / "conf/flights.yaml")
    for name, file in (("flights", "flights-2013-12.csv"), ("weather", "weather.csv")):
        columns = pipeline.source.tables[name].columns
        assert columns is not None
        (raw / file).write_text(",".join(part.split()[0] for part in columns.split(",")) + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert validate(ROOT / "conf/flights.yaml").pipeline == pipeline


def test_config_errors_keep_their_problems_for_programs(refusal: Refusal) -> None:
    refusal(("epochs: 3", "epochs: x"))
    with pytest.raises(ConfigError) as refused:
        load_pipeline("shop.yaml")
    assert [problem.key for problem in refused.value.problems] == [("train", "fit", "epochs")]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("expression: late > 0", 'expression: "rand() > 0.5"'), "rand gives another result in each run"),
        (("expression: late > 0", "expression: \"stamp > timestamp 'now'\""), "gives another result in each run"),
        (("expression: late > 0", "expression: \"stamp > CAST('today' AS DATE)\""), "another result in each run"),
        (("expression: late > 0", 'expression: "stamp > unix_timestamp()"'), "gives another result in each run"),
        (
            ("expression: late > 0", "expression: \"reflect('java.util.UUID', 'randomUUID') > ''\""),
            "reflect gives another",
        ),
        (("SELECT o.*, c.size", "SELECT o.*, c.size, current_timestamp AS now"), "current_timestamp gives another"),
        (("nullValue: NA", "nulValue: NA"), "csv has no option 'nulValue' here; did you mean 'nullValue'?"),
        (("nullValue: NA", "comment: '#'"), "csv has no option 'comment' here"),
        (("indicator: true", "indicator: true, fill: .nan"), "features.numeric.fill"),
        (("SELECT o.*, c.size", "SELECT o.*, c.size AS `c.size`"), "holds a dot; give it an alias"),
    ],
)
def test_what_could_not_be_done_twice_or_exactly_is_refused(
    refusal: Refusal, change: tuple[str, str], said: str
) -> None:
    assert said in "\n".join(refusal(change))
