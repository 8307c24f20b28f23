"""One example of each verb: as it stands in a pipeline file, and what makes the same from Python. Both are tested."""

# ruff: noqa: E501 - each example is one line of a file, as it would stand there

from collections.abc import Mapping
from dataclasses import dataclass

from lakefit.config.clean import Clean
from lakefit.config.evaluate import Evaluate
from lakefit.config.expect import Expect
from lakefit.config.features import (
    Bucketize,
    Categorical,
    Dates,
    Features,
    Images,
    MultiValued,
    Numeric,
    Statistics,
    Tensors,
)
from lakefit.config.hooks import Hooks
from lakefit.config.pipeline import Output, Score
from lakefit.config.rows import Deduplicate, Label, Reject, Require, Split
from lakefit.config.sections import Explained
from lakefit.config.source import Source, Table
from lakefit.config.train import (
    Checkpointing,
    Compile,
    Feed,
    Fit,
    Functional,
    Layer,
    Model,
    TensorBoard,
    Train,
    TrainImages,
)
from lakefit.config.tune import Tune


@dataclass(frozen=True, slots=True)
class Example:
    """`yaml`: the data of one section; `python`: an expression that is the same section."""

    yaml: str
    python: str


EXAMPLES: Mapping[type[Explained], tuple[Example, ...]] = {
    Source: (
        Example(
            "{tables: {t: {path: raw/*.parquet, format: parquet}}, rows: t}",
            'Source(tables={"t": Table(path="raw/*.parquet", format="parquet")}, rows="t")',
        ),
    ),
    Table: (
        Example("{path: photos, format: images}", 'Table(path="photos", format="images")'),
        Example(
            '{path: raw/*.csv.gz, format: csv, options: {encoding: ISO-8859-1}, schema: "id INT, city STRING"}',
            'Table(path="raw/*.csv.gz", format="csv", options={"encoding": "ISO-8859-1"}, schema="id INT, city STRING")',
        ),
        Example(
            '{path: events, format: json, schema: "id INT", partitions: "day DATE", on_corrupt_file: exclude}',
            'Table(path="events", format="json", schema="id INT", partitions="day DATE", on_corrupt_file="exclude")',
        ),
        Example('{table: sales.orders, version: "2024-05-01"}', 'Table(table="sales.orders", version="2024-05-01")'),
    ),
    Clean: (
        Example("{column: [city, name], text: [nfkc, collapse, trim]}", 'Clean(column=["city", "name"], text=["nfkc", "collapse", "trim"])'),
        Example('{column: age, null_if: [-1, 999]}', 'Clean(column="age", null_if=[-1, 999])'),
        Example(
            "{column: day, parse: {as: date, formats: [yyyy-MM-dd, d.M.yyyy], unparsable: as_null}}",
            'Clean(column="day", parse=Parse(as_="date", formats=["yyyy-MM-dd", "d.M.yyyy"], unparsable="as_null"))',
        ),
        Example(
            "{column: at, parse: {as: timestamp, formats: [d.M.yyyy HH:mm], zone: Europe/Berlin}}",
            'Clean(column="at", parse=Parse(as_="timestamp", formats=["d.M.yyyy HH:mm"], zone="Europe/Berlin"))',
        ),
        Example(
            '{column: price, parse: {as: number, decimal: ",", thousands: ".", currency: [EUR, €]}}',
            'Clean(column="price", parse=Parse(as_="number", decimal=",", thousands=".", currency=["EUR", "€"]))',
        ),
        Example("{column: share, parse: {as: number, percent: true}}", 'Clean(column="share", parse=Parse(as_="number", percent=True))'),
        Example('{column: visits, parse: {as: integer, thousands: ","}}', 'Clean(column="visits", parse=Parse(as_="integer", thousands=","))'),
        Example(
            "{column: paid, parse: {as: boolean, true_words: [ja, oui], false_words: [nein, non]}}",
            'Clean(column="paid", parse=Parse(as_="boolean", true_words=["ja", "oui"], false_words=["nein", "non"]))',
        ),
        Example('{column: tags, parse: {as: list, separator: "|"}}', 'Clean(column="tags", parse=Parse(as_="list", separator="|"))'),
        Example(
            "{column: city, correct: {values: [Berlin, Hamburg], max_edits: 2}}",
            'Clean(column="city", correct=Correct(values=["Berlin", "Hamburg"], max_edits=2))',
        ),
        Example(
            "{column: city, correct: {mapping: {HH: Hamburg, Bln: Berlin}}}",
            'Clean(column="city", correct=Correct(mapping={"HH": "Hamburg", "Bln": "Berlin"}))',
        ),
        Example("{column: age, clip: {min: 0, max: 120}}", 'Clean(column="age", clip=Clip(min=0, max=120))'),
        Example(
            "{column: image, image: {channels: 3, resize: [224, 224], fit: crop}}",
            'Clean(column="image", image=Image(channels=3, resize=[224, 224], fit="crop"))',
        ),
        Example("{column: speed, derive: distance / hours}", 'Clean(column="speed", derive="distance / hours")'),
        Example("{drop: [comment]}", 'Clean(drop=["comment"])'),
        Example('{custom: "own.steps:geocode"}', 'Clean(custom="own.steps:geocode")'),
    ),
    Deduplicate: (
        Example("{key: [order_id], keep: last by updated_at}", 'Deduplicate(key=["order_id"], keep="last by updated_at")'),
        Example("{key: [order_id], keep: most_complete, null_key: keep}", 'Deduplicate(key=["order_id"], keep="most_complete", null_key="keep")'),
    ),
    Reject: (
        Example('{when: "amount < 0", because: refunded}', 'Reject(when="amount < 0", because="refunded")'),
        Example('{when: "amount < 0", because: refunded or unknown, "null": reject}', 'Reject(when="amount < 0", because="refunded or unknown", null="reject")'),
    ),
    Require: (
        Example("{that: amount IS NOT NULL, because: no amount}", 'Require(that="amount IS NOT NULL", because="no amount")'),
        Example('{that: amount < 1e6, because: too large, "null": keep}', 'Require(that="amount < 1e6", because="too large", null="keep")'),
    ),
    Expect: (
        Example(
            '{input: [rows >= 100000, "null_share(temp) < 0.05", mean(distance) between 900 and 1200]}',
            'Expect(input=["rows >= 100000", "null_share(temp) < 0.05", "mean(distance) between 900 and 1200"])',
        ),
        Example(
            '{result: ["unique(id)", "values(carrier) in [AA, UA]", drift(distance) < 0.25]}',
            'Expect(result=["unique(id)", "values(carrier) in [AA, UA]", "drift(distance) < 0.25"])',
        ),
    ),
    Split: (
        Example("{by: [customer], train: 0.8, validation: 0.1, test: 0.1, seed: 7}", 'Split(by=["customer"], train=0.8, validation=0.1, test=0.1, seed=7)'),
        Example("{stratify: [country]}", 'Split(stratify=["country"])'),
        Example(
            "{time: {column: day, validation: 2024-03-01, test: 2024-04-01, gap: 7 days}}",
            'Split(time=TimeSplit(column="day", validation="2024-03-01", test="2024-04-01", gap="7 days"))',
        ),
        Example("{column: part}", 'Split(column="part")'),
        Example("{by: [customer], folds: 5, fold: 0}", 'Split(by=["customer"], folds=5, fold=0)'),
    ),
    Features: (
        Example(
            "{numeric: {columns: [pay]}, bucketize: {columns: [age], boundaries: [18, 65]}}",
            'Features(numeric=Numeric(columns=["pay"]), bucketize=Bucketize(columns=["age"], boundaries=[18, 65]))',
        ),
        Example(
            "{numeric: [{columns: [pay]}, {columns: [age], normalize: none}], quantiles: approximate}",
            'Features(numeric=[Numeric(columns=["pay"]), Numeric(columns=["age"], normalize="none")], quantiles="approximate")',
        ),
        Example(
            "{categorical: {columns: [city]}, statistics: {from: 0123456789abcdef}}",
            'Features(categorical=Categorical(columns=["city"]), statistics=Statistics(fingerprint="0123456789abcdef"))',
        ),
    ),
    Numeric: (
        Example(
            "{columns: [pay], fill: median, indicator: true, clip: {quantiles: [0.01, 0.99]}, normalize: robust}",
            'Numeric(columns=["pay"], fill="median", indicator=True, clip=LearnedClip(quantiles=[0.01, 0.99]), normalize="robust")',
        ),
        Example(
            "{columns: [pay], fill: 0, clip: {robust_z: 5}, normalize: yeo_johnson}",
            'Numeric(columns=["pay"], fill=0, clip=LearnedClip(robust_z=5), normalize="yeo_johnson")',
        ),
    ),
    Categorical: (
        Example("{columns: [city], min_count: 20, max_size: 1000}", 'Categorical(columns=["city"], min_count=20, max_size=1000)'),
        Example("{columns: [url], hash_buckets: 1024, embedding: 8}", 'Categorical(columns=["url"], hash_buckets=1024, embedding=8)'),
    ),
    Bucketize: (Example("{columns: [age], boundaries: [18, 30, 65]}", 'Bucketize(columns=["age"], boundaries=[18, 30, 65])'),),
    MultiValued: (Example("{columns: [tags], max_values: 8}", 'MultiValued(columns=["tags"], max_values=8)'),),
    Dates: (
        Example("{columns: [ordered_at], parts: [month, weekday, hour], cyclical: true}", 'Dates(columns=["ordered_at"], parts=["month", "weekday", "hour"], cyclical=True)'),
    ),
    Tensors: (Example("{columns: [pixels], shape: [8, 8]}", 'Tensors(columns=["pixels"], shape=[8, 8])'),),
    Images: (
        Example(
            "{columns: [image], size: [224, 224], channels: 3}", 'Images(columns=["image"], size=[224, 224], channels=3)'
        ),
    ),
    Statistics: (Example("{from: 0123456789abcdef}", 'Statistics(fingerprint="0123456789abcdef")'),),
    Label: (
        Example("{expression: delay > 15, class_weights: balanced}", 'Label(expression="delay > 15", class_weights="balanced")'),
        Example('{expression: delay > 15, weight: 1 + amount / 100}', 'Label(expression="delay > 15", weight="1 + amount / 100")'),
        Example(
            "{expression: grade, type: classes, classes: [good, poor], class_weights: {good: 1, poor: 4}}",
            'Label(expression="grade", type="classes", classes=["good", "poor"], class_weights={"good": 1, "poor": 4})',
        ),
        Example("{expression: price, type: regression, normalize: standard}", 'Label(expression="price", type="regression", normalize="standard")'),
        Example("{name: topics, expression: tags, type: multi_label}", 'Label(name="topics", expression="tags", type="multi_label")'),
    ),
    Output: (
        Example("{path: lake, keep: 5, grace: 2 days}", 'Output(path="lake", keep=5, grace="2 days")'),
        Example('{path: "${HOME}/lake", rows_per_file: 5000000, rows_per_group: 100000}', 'Output(path="${HOME}/lake", rows_per_file=5_000_000, rows_per_group=100_000)'),
        Example("{path: lake, layout: packed}", 'Output(path="lake", layout="packed")'),
    ),
    Train: (
        Example("{model: my_models:wide_and_deep, fit: {epochs: 5, batch_size: 4096}}", 'Train(model="my_models:wide_and_deep", fit=Fit(epochs=5, batch_size=4096))'),
        Example(
            """\
devices: gpu:2
model: {sequential: [{Dense: {units: 1, activation: sigmoid}}]}
fit: {epochs: 20, batch_size: 1024}
callbacks: [{EarlyStopping: {patience: 3}}]""",
            """\
Train(
    devices="gpu:2",
    model=Model(sequential=[{"Dense": {"units": 1, "activation": "sigmoid"}}]),
    fit=Fit(epochs=20, batch_size=1024),
    callbacks=[{"EarlyStopping": {"patience": 3}}],
)""",
        ),
    ),
    Model: (
        Example(
            "{sequential: [{Dense: {units: 8, activation: relu}}, BatchNormalization, {Dense: {units: 1, activation: sigmoid}}]}",
            """\
Model(
    sequential=[
        {"Dense": {"units": 8, "activation": "relu"}},
        "BatchNormalization",
        {"Dense": {"units": 1, "activation": "sigmoid"}},
    ]
)""",
        ),
        Example(
            "{application: MobileNetV2, weights: mobilenet_v2_no_top.h5, trainable: top}",
            'Model(application="MobileNetV2", weights="mobilenet_v2_no_top.h5", trainable="top")',
        ),
    ),
    Functional: (
        Example(
            """\
inputs: {weather: [temp, humid], place: [origin, dest]}
layers:
  sky: {layer: {Dense: {units: 16, activation: relu}}, inputs: weather}
  both: {layer: {Dense: {units: 32, activation: relu}}, inputs: [sky, place]}
  late: {layer: {Dense: {units: 1, activation: sigmoid}}}
  delay: {layer: {Dense: {units: 1}}, inputs: both}""",
            """\
Functional(
    inputs={"weather": ["temp", "humid"], "place": ["origin", "dest"]},
    layers={
        "sky": Layer(layer={"Dense": {"units": 16, "activation": "relu"}}, inputs="weather"),
        "both": Layer(layer={"Dense": {"units": 32, "activation": "relu"}}, inputs=["sky", "place"]),
        "late": Layer(layer={"Dense": {"units": 1, "activation": "sigmoid"}}),
        "delay": Layer(layer={"Dense": {"units": 1}}, inputs="both"),
    },
)""",
        ),
    ),
    Layer: (Example("{layer: {Dense: {units: 64}}, inputs: [distance, carrier]}", 'Layer(layer={"Dense": {"units": 64}}, inputs=["distance", "carrier"])'),),
    Compile: (
        Example(
            """\
optimizer: {AdamW: {learning_rate: {CosineDecay: {initial_learning_rate: 0.01, decay_steps: 2000}}, clipnorm: 1.0}}
loss: {late: {BinaryCrossentropy: {label_smoothing: 0.1}}, delay: huber}
loss_weights: {late: 1.0, delay: 0.2}
metrics: {late: [AUC], delay: [MeanAbsoluteError]}""",
            """\
Compile(
    optimizer={
        "AdamW": {
            "learning_rate": {"CosineDecay": {"initial_learning_rate": 0.01, "decay_steps": 2000}},
            "clipnorm": 1.0,
        }
    },
    loss={"late": {"BinaryCrossentropy": {"label_smoothing": 0.1}}, "delay": "huber"},
    loss_weights={"late": 1.0, "delay": 0.2},
    metrics={"late": ["AUC"], "delay": ["MeanAbsoluteError"]},
)""",
        ),
        Example(
            "{optimizer: {Adam: {learning_rate: 0.001}}, loss: binary_crossentropy, metrics: [AUC]}",
            'Compile(optimizer={"Adam": {"learning_rate": 0.001}}, loss="binary_crossentropy", metrics=["AUC"])',
        ),
    ),
    Fit: (Example("{epochs: 20, batch_size: 1024}", "Fit(epochs=20, batch_size=1024)"),),
    Feed: (Example("{lanes: 16, remainder: drop}", 'Feed(lanes=16, remainder="drop")'),),
    Checkpointing: (
        Example('{every: 1000 steps, keep: 3, monitor: val_auc, mode: max, resume: exact}', 'Checkpointing(every="1000 steps", keep=3, monitor="val_auc", mode="max", resume="exact")'),
    ),
    TrainImages: (
        Example(
            "{normalize: standard, augment: [{RandomFlip: {mode: horizontal}}, RandAugment]}",
            'TrainImages(normalize="standard", augment=[{"RandomFlip": {"mode": "horizontal"}}, "RandAugment"])',
        ),
    ),
    TensorBoard: (Example("{histograms: true, profile: [10, 20]}", 'TensorBoard(histograms=True, profile=(10, 20))'),),
    Tune: (
        Example(
            "{trials: 50, parallel: 4, objective: val_auc, search: {train.fit.batch_size: [256, 1024]}}",
            'Tune(trials=50, parallel=4, objective="val_auc", search={"train.fit.batch_size": [256, 1024]})',
        ),
        Example(
            '{trials: 30, pruner: hyperband, search: {train.compile.optimizer.Adam.learning_rate: "log(1e-5, 1e-2)"}}',
            'Tune(trials=30, pruner="hyperband", search={"train.compile.optimizer.Adam.learning_rate": "log(1e-5, 1e-2)"})',
        ),
    ),
    Evaluate: (
        Example('{require: {auc: ">= 0.70", vs_current: ">= -0.005"}}', 'Evaluate(require={"auc": ">= 0.70", "vs_current": ">= -0.005"})'),
    ),
    Hooks: (
        Example("{on_failure: /usr/local/bin/page --team ml, timeout: 30 seconds}", 'Hooks(on_failure="/usr/local/bin/page --team ml", timeout="30 seconds")'),
    ),
    Score: (
        Example("{input: raw/new-*.csv, output: predictions, keys: [order_id]}", 'Score(input="raw/new-*.csv", output="predictions", keys=["order_id"])'),
    ),
}  # fmt: skip
