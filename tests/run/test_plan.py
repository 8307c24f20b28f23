"""What is current is told by fingerprints and what stands on disk; nothing after a stage that is not is."""

import json
import os
from pathlib import Path

import pytest

from feeds import manifest_of
from lakefit.console import Console
from lakefit.dataset.features import Features
from lakefit.dataset.layout import ARTIFACT, METRICS, RUN, SCORE, WEIGHTS, Layout
from lakefit.dataset.manifest import MANIFEST
from lakefit.errors import InputError
from lakefit.run.plan import STAGES, StagePlan, fingerprints, plan, score_fingerprint, score_inputs
from lakefit.run.rollback import rollback
from lakefit.run.stages import Run, train_job
from lakefit.run.validate import Validated, validate
from shop import write_shop

SCORE_SECTION = "score: {input: orders-0.csv, output: scored, keys: [id]}\n"


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = write_shop(tmp_path, rows=5)
    path.write_text(path.read_text(encoding="utf-8") + SCORE_SECTION, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def valid(*overrides: str) -> Validated:
    return validate("shop.yaml", overrides)


def steps(*overrides: str) -> dict[str, StagePlan]:
    pipeline = valid(*overrides)
    planned = plan(pipeline, fingerprints(pipeline))
    assert tuple(step.stage for step in planned) == STAGES
    return {step.stage: step for step in planned}


def current(*overrides: str) -> list[str]:
    return [name for name, step in steps(*overrides).items() if step.current]


def write(path: Path, **content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def run_folder() -> Path:
    pipeline = valid()
    return Path(str(Layout.of(pipeline.pipeline).run(fingerprints(pipeline).run)))


def finish(*stages: str) -> None:
    """Put down what the stages leave when they are done."""
    pipeline = valid()
    prints, layout = fingerprints(pipeline), Layout.of(pipeline.pipeline)
    run_dir = layout.run(prints.run)
    if "prepare" in stages:
        write(layout.dataset(prints.dataset) / MANIFEST)
    if "train" in stages:
        write(run_dir / WEIGHTS)
        write(run_dir / RUN, stages={"train": {"state": "done"}})
    if "evaluate" in stages:
        write(run_dir / METRICS, fingerprint=prints.evaluation)
    if "export" in stages:
        write(layout.artifact(prints.artifact) / ARTIFACT)
    if "score" in stages:
        wanted = score_fingerprint(prints.artifact, score_inputs(pipeline, "orders-0.csv"))
        write(Path("scored") / SCORE, fingerprint=wanted)


def test_at_first_nothing_is_current(shop: Path) -> None:
    assert {step.why for step in steps().values()} == {"there is no result yet"}
    assert current() == []


@pytest.mark.parametrize("done", range(len(STAGES) + 1))
def test_the_stages_that_are_done_are_current(shop: Path, done: int) -> None:
    finish(*STAGES[:done])
    assert current() == list(STAGES[:done])


@pytest.mark.parametrize("missing", STAGES)
def test_a_stage_after_one_that_runs_runs_too(shop: Path, missing: str) -> None:
    finish(*(stage for stage in STAGES if stage != missing))
    assert current() == list(STAGES[: STAGES.index(missing)])  # type: ignore[arg-type]
    for stage in STAGES[STAGES.index(missing) + 1 :]:  # type: ignore[arg-type]
        assert steps()[stage].why.endswith("runs first")


@pytest.mark.parametrize(
    ("override", "still"),
    [
        ("split.seed=9", []),
        ("train.fit.epochs=9", ["prepare"]),
        ("train.checkpoint.every=9 steps", list(STAGES)),
        ("train.tensorboard.histograms=true", list(STAGES)),
        ("train.feed.in_memory_mb=9", list(STAGES)),
        ("train.feed.lanes=9", ["prepare"]),
        ("train.feed.remainder=drop", ["prepare"]),
        ("features.categorical.embedding=9", ["prepare"]),
        ('evaluate.require={accuracy: ">= 0.9"}', list(STAGES)),
        ("evaluate.baseline_rows=9", ["prepare", "train"]),
        ("score.keys=[day]", ["prepare", "train", "evaluate"]),
        ("score.input=orders-1.csv", ["prepare", "train", "evaluate", "export"]),
        ("score.output=elsewhere", ["prepare", "train", "evaluate", "export"]),
    ],
)
def test_a_changed_setting_runs_what_depends_on_it(shop: Path, override: str, still: list[str]) -> None:
    finish(*STAGES)
    assert current(override) == still
    assert current() == list(STAGES)


def test_changed_inputs_run_everything_and_say_why(shop: Path) -> None:
    finish(*STAGES)
    os.utime("orders-0.csv", ns=(1, 1))
    assert current() == []
    assert steps()["prepare"].why == "its inputs or its settings have changed"


@pytest.mark.parametrize(
    ("setting", "file", "before", "after"),
    [
        ("warm_start: used", "used/artifact.json", '{"fingerprint": "1"}', '{"fingerprint": "2"}'),
        ("callbacks: ['mine:Noted']", "mine.py", "class Noted: ...", "class Noted: pass"),
    ],
    ids=["the artifact to begin with", "code"],
)
def test_what_a_run_takes_from_beside_its_file_runs_it_again(
    shop: Path, setting: str, file: str, before: str, after: str
) -> None:
    pipeline, beside = Path("shop.yaml"), Path(file)
    pipeline.write_text(pipeline.read_text(encoding="utf-8").replace("train:\n", f"train:\n  {setting}\n"), "utf-8")
    beside.parent.mkdir(exist_ok=True)
    beside.write_text(before, encoding="utf-8")
    finish(*STAGES)
    assert current() == list(STAGES)
    beside.write_text(after, encoding="utf-8")
    assert current() == ["prepare"]


def test_a_run_without_its_weights_is_not_current_though_it_was_done(shop: Path) -> None:
    finish(*STAGES)
    (run_folder() / WEIGHTS).unlink()
    assert current() == ["prepare"]
    assert steps()["train"].why.endswith("is not finished")


def test_a_run_that_was_stopped_is_not_current(shop: Path) -> None:
    finish(*STAGES)
    write(run_folder() / RUN, stages={"train": {"state": "running"}})
    assert current() == ["prepare"]
    assert steps()["train"].why.endswith("is not finished")


@pytest.mark.parametrize("content", ["{", '{"fingerprint": 3}'])
@pytest.mark.parametrize(
    ("record", "still"),
    [
        (RUN, ["prepare"]),
        (METRICS, ["prepare", "train"]),
        (SCORE, ["prepare", "train", "evaluate", "export"]),
    ],
)
def test_a_damaged_record_is_no_result(shop: Path, record: str, still: list[str], content: str) -> None:
    finish(*STAGES)
    folder = Path("scored") if record == SCORE else run_folder()
    (folder / record).write_text(content, encoding="utf-8")
    assert current() == still


@pytest.mark.parametrize("content", ['{"dataset": "58a3', "[]", ""])
def test_a_damaged_note_of_what_is_in_use_is_named_and_mended_by_naming_a_run(shop: Path, content: str) -> None:
    finish(*STAGES)
    layout, prints = Layout.of(valid().pipeline), fingerprints(valid())
    write(Path(str(layout.current)), dataset=prints.dataset, run=prints.run, artifact=prints.artifact)
    Run(valid(), Console("plain"))
    Path(str(layout.current)).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"current\.json: is damaged, .* `lakefit rollback shop\.yaml --to RUN`"):
        Run(valid(), Console("plain"))
    with pytest.raises(InputError, match="is damaged"):
        rollback("shop.yaml", (), None, Console("plain"))


def test_a_dataset_of_another_pipeline_is_not_trained_on(shop: Path) -> None:
    run = Run(valid(), Console("plain"))
    write(run.dataset_dir / MANIFEST, **json.loads(manifest_of([], Features()).model_dump_json(by_alias=True)))
    with pytest.raises(InputError, match=rf"is dataset 0 of the pipeline 'n'; expected {run.prints.dataset} of 'shop'"):
        train_job(run)
