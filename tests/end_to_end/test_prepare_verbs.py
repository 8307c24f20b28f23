"""Every verb of preparation in one pipeline file, on Spark, against counts known beforehand."""

import json
import textwrap
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from lakefit.dataset.manifest import Manifest, read_manifest
from lakefit.errors import ContractError, InputError
from lakefit.prepare import expect, stage, staged
from lakefit.run.validate import validate
from shop import events, run_prepare

PIPELINE = """
name: clinic
source:
  tables:
    visits:
      path: visits.csv
      format: csv
      options: {header: true}
      schema: "id STRING, day STRING, city STRING, price STRING, paid STRING, tags STRING, age INT, stamp INT"
  rows: visits
clean:
  - {column: [id, city], text: [trim]}
  - {column: id, null_if: ["-"]}
  - {column: day, parse: {as: date, formats: [yyyy-MM-dd, d.M.yyyy]}}
  - {column: price, parse: {as: number, decimal: ",", thousands: ".", currency: [EUR], unparsable: as_null}}
  - {column: paid, parse: {as: boolean, true_words: [ja], false_words: [nein]}}
  - {column: tags, parse: {as: list, separator: "|"}}
  - {column: city, correct: {values: [Berlin, Hamburg, Oslo]}}
  - {column: age, clip: {min: 0, max: 100}}
  - {column: month, derive: month(day)}
  - {custom: "own:twice"}
  - {drop: [price]}
deduplicate: {key: [id], keep: most_complete, null_key: keep}
reject:
  - {when: city = 'Oslo', because: abroad}
require:
  - {that: age >= 1, because: no age}
expect:
  input: [rows >= 1000, unique(stamp), null_share(city) < 0.2]
  result: ["values(city) in [Berlin, Hamburg]", min(age) >= 1, rejected_share < 0.5, drift(age) < 0.1]
split: {stratify: [paid], train: 0.6, validation: 0.2, test: 0.2}
features:
  numeric:
    - {columns: [age], clip: {quantiles: [0.05, 0.95]}, normalize: yeo_johnson, indicator: true}
    - {columns: [price2], fill: most_frequent, normalize: robust}
  categorical: [{columns: [city]}, {columns: [stamp], hash_buckets: 8}]
  bucketize: {columns: [age], boundaries: [18, 65]}
  multi_valued: {columns: [tags], max_values: 2}
  dates: {columns: [day], parts: [month, weekday], cyclical: true}
label: {expression: paid, class_weights: balanced, weight: "1 + age / 100"}
output: {path: lake}
train:
  model: {sequential: [{Dense: {units: 4, activation: relu}}, {Dense: {units: 1, activation: sigmoid}}]}
  fit: {epochs: 1, batch_size: 128}
"""
ROWS = 1_200


def lines() -> list[str]:
    """Return visits: a fixed function of their number, so that every count below is known."""
    cities = ["Berlin", "Hamburg", " Berlin", "Hamborg", "Oslo"]
    days = ["2020-03-{0:02d}", "{0}.3.2020"]
    found = []
    for i in range(ROWS):
        day = days[i % 2].format(i % 28 + 1)
        price = ['"1.234,50 EUR"', "7", '"12,x"'][i % 3]
        age = i % 120
        found.append(f"v{i},{day},{cities[i % 5]},{price},{'ja' if i % 7 < 3 else 'nein'},a|b|c,{age},{i}")
    # Emptier copies that come later; rows without a key; days that are none.
    found += [f"v{i},2020-03-01,,,ja,,50,{ROWS + i}" for i in range(30)]
    found += [f"-,2020-03-02,Berlin,7,ja,a,30,{2 * ROWS + i}" for i in range(4)]
    found += [f"w{i},2020-13-01,Berlin,7,nein,b,30,{3 * ROWS + i}" for i in range(6)]
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clinic")
    header = "id,day,city,price,paid,tags,age,stamp"
    (folder / "visits.csv").write_text("\n".join([header, *lines()]) + "\n", encoding="utf-8")
    (folder / "clinic.yaml").write_text(textwrap.dedent(PIPELINE), encoding="utf-8")
    (folder / "own.py").write_text("def twice(frame):\n    return frame.withColumn('price2', frame.price * 2)\n")
    return folder


@pytest.fixture(scope="module")
def manifest(spark: Any, folder: Path) -> Manifest:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run = run_prepare(validate("clinic.yaml"))
        return read_manifest(run.dataset_dir.absolute())


def table(folder: Path, manifest: Manifest, kind: str) -> Any:
    return pq.read_table(folder / "lake/clinic/datasets" / manifest.fingerprint / kind)


def test_the_ledger_knows_the_fate_of_every_row(folder: Path, manifest: Manifest) -> None:
    ledger = manifest.ledger
    assert ledger.rows_in == ROWS + 40
    assert ledger.duplicates == 30
    ages = [i % 120 for i in range(ROWS)]
    oslo = sum(i % 5 == 4 for i in range(ROWS))
    young = sum(age < 1 and i % 5 != 4 for i, age in enumerate(ages))
    assert ledger.rejected == {
        "day does not parse as date": 6,
        "paid does not parse as boolean": 0,
        "abroad": oslo,
        "no age": young,
    }
    assert sum(ledger.kept.values()) == ROWS + 4 - oslo - young
    assert ledger.unparsable == {"day": 6, "price": ROWS // 3}


def test_rejects_keep_the_text_that_did_not_parse(folder: Path, manifest: Manifest) -> None:
    rejects = table(folder, manifest, "rejects").to_pylist()
    texts = [row["_unparsable"] for row in rejects if row["_reason"] == "day does not parse as date"]
    assert texts == ["day: 2020-13-01"] * 6


def test_the_emptier_copy_is_the_duplicate(folder: Path, manifest: Manifest) -> None:
    duplicates = table(folder, manifest, "duplicates").to_pylist()
    assert {row["stamp"] for row in duplicates} == {ROWS + i for i in range(30)}


def test_corrections_are_written_down(manifest: Manifest) -> None:
    (correction,) = manifest.corrections
    assert (correction.column, correction.from_, correction.to) == ("city", "Hamborg", "Hamburg")
    assert correction.rows == sum(i % 5 == 3 for i in range(ROWS))


def test_the_prepared_columns_are_those_of_the_features(folder: Path, manifest: Manifest) -> None:
    train = table(folder, manifest, "train")
    assert set(train.column_names) == {
        "_row", "_occurrence", "_position", "age", "price2", "age_missing", "day_month_sin", "day_month_cos",
        "day_weekday_sin", "day_weekday_cos", "city", "stamp", "age_bucket", "tags_0", "tags_1", "label", "weight",
    }  # fmt: skip
    assert set(train["city"].to_pylist()) == {2, 3}
    assert set(train["age_bucket"].to_pylist()) == {2, 3, 4}
    assert max(train["stamp"].to_pylist()) <= 9
    assert train["weight"].to_numpy().min() > 0
    assert manifest.statistics["age"].high == 100
    assert manifest.features.multi_valued[0].cut > 0
    day = manifest.statistics["day"]
    assert day.low == (date(2020, 3, 1) - date(1970, 1, 1)).days * 86_400


def test_strata_are_listed_with_their_shares(manifest: Manifest) -> None:
    assert [stratum.values for stratum in manifest.strata] == [("false",), ("true",)]
    for split, files in manifest.splits.items():
        assert sum(stratum.rows[split] for stratum in manifest.strata) == files.rows


def test_contracts_that_hold_are_written_down(manifest: Manifest) -> None:
    found = {outcome.expected: outcome.found for outcome in manifest.expectations}
    assert found["rows >= 1000"] == "1,240"
    assert found["drift(age) < 0.1"] == "no version in use to compare with"
    assert all(outcome.holds for outcome in manifest.expectations)


def test_a_broken_contract_keeps_the_old_version(
    spark: Any, folder: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    contracts = "[unique(city), 'values(city) in [Bonn]', rows < 10, drift(age) < 0.1, null_share(age) == 0]"
    older = ('clean.7={"column": "age", "derive": "age * 3 + 200"}', f"expect.result={contracts}")
    with pytest.raises(ContractError) as error:
        run_prepare(validate("clinic.yaml", older))
    assert error.value.exit_code == 5
    said = str(error.value)
    assert "4 of 8 contracts do not hold" in said
    assert "BROKEN  result  unique(city)" in said
    assert "found 'Berlin' in " in said
    assert [line.split()[0] for line in said.splitlines() if "drift(age)" in line] == ["BROKEN"]
    datasets = [path.name for path in (folder / "lake/clinic/datasets").iterdir()]
    assert datasets == [manifest.fingerprint]
    assert json.loads((folder / "lake/clinic/current.json").read_text())["dataset"] == manifest.fingerprint


def test_jobs_of_spark_find_what_is_found_here(
    spark: Any, folder: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above `LOCAL_ROWS` statistics, contracts and checks are counted by Spark: the same bytes and the same words."""
    monkeypatch.chdir(folder)
    for module in (staged, expect, stage):
        monkeypatch.setattr(module, "LOCAL_ROWS", 0)
    large = read_manifest(run_prepare(validate("clinic.yaml", ("output.path=large",))).dataset_dir)

    def facts(one: Manifest) -> dict[str, Any]:
        # Without a version in use there is no drift to compare.
        return one.model_dump(exclude={"created": True, "pipeline": {"output"}, "expectations": True})

    assert facts(large) == facts(manifest)
    contracts = "[unique(city), distinct(age) == 101, unique(stamp), 'values(city) in [Bonn]']"
    said = {}
    for path, rows in (("large", 0), ("lake", 2_000_000)):
        for module in (staged, expect, stage):
            monkeypatch.setattr(module, "LOCAL_ROWS", rows)
        with pytest.raises(ContractError) as error:
            run_prepare(
                validate("clinic.yaml", (f"output.path={path}", f"expect.input={contracts}", "expect.result=[]"))
            )
        said[path] = str(error.value)
    assert said["large"] == said["lake"]
    torn = ("split={time: {column: stamp, validation: 600, test: 900}, by: [city]}", "output.path=large")
    for rows in (0, 2_000_000):
        monkeypatch.setattr(stage, "LOCAL_ROWS", rows)
        with pytest.raises(InputError, match="2 groups of city have rows in two splits"):
            run_prepare(validate("clinic.yaml", torn))


def test_features_of_an_earlier_dataset_can_be_taken_over(
    spark: Any, folder: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    frozen = ("split.stratify=[age]", f"features.statistics.from='{manifest.fingerprint}'")
    run = run_prepare(validate("clinic.yaml", frozen))
    found = read_manifest(run.dataset_dir)
    assert found.fingerprint != manifest.fingerprint
    assert found.features == manifest.features
    # Ten rows of each age: some ages have none in a split.
    small = [stratum for stratum in found.strata if 0 in stratum.rows.values()]
    (said,) = [event for event in events(capsys.readouterr().out) if event["event"] == "strata"]
    assert (said["without"], said["strata"]) == (len(small), len(found.strata))
    assert f"such as {small[0].values[0]} (train " in said["message"]
    changed = (*frozen, "features.bucketize.boundaries=[5]")
    with pytest.raises(InputError, match="made with another features"):
        run_prepare(validate("clinic.yaml", changed))


def test_a_custom_step_that_loses_rows_is_blamed(
    spark: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("visits.csv", "clinic.yaml"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "losing.py").write_text(
        "def some(frame):\n    return frame.where('stamp > 5 OR stamp IS NULL').withColumn('price2', frame.price)\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"custom: losing:some drops or multiplies rows: 1,241 go in, 1,235 come out"):
        run_prepare(validate("clinic.yaml", ("clean.9.custom=losing:some",)))


def test_what_a_custom_step_marks_reaches_the_ledger(
    spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "visits.csv").write_text("age,paid\n" + "".join(f"{i},{i % 2}\n" for i in range(40)), encoding="utf-8")
    (tmp_path / "marking.py").write_text(
        "from pyspark.sql import functions as F\n"
        "def old(frame):\n"
        "    marks = F.col('_marks')\n"
        "    for kind, said in (('unparsable', '0\\x1fage\\x1fold'), ('corrected', '0\\x1fage\\x1fold\\x1f30')):\n"
        "        marks = marks.withField(kind, F.when(F.col('age') >= 30, F.lit(said)))\n"
        "    return frame.withColumn('_marks', marks)\n"
    )
    (tmp_path / "visits.yaml").write_text(
        textwrap.dedent("""
        name: visits
        source:
          tables: {visits: {path: visits.csv, format: csv, options: {header: true}, schema: "age INT, paid INT"}}
          rows: visits
        clean: [{custom: "marking:old"}]
        split: {train: 0.5, validation: 0.25, test: 0.25}
        features: {numeric: {columns: [age], normalize: standard}}
        label: {expression: paid}
        output: {path: lake}
        train: {model: {sequential: [{Dense: {units: 1, activation: sigmoid}}]}, fit: {epochs: 1, batch_size: 8}}
        """),
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    found = read_manifest(run_prepare(validate("visits.yaml")).dataset_dir)
    assert found.ledger.unparsable == {"age": 10}
    (correction,) = found.corrections
    assert (correction.column, correction.from_, correction.to, correction.rows) == ("age", "old", "30", 10)
