"""A model that can't be built is refused before Spark starts, with its line in the pipeline file and what would do."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakefit.cli import main
from lakefit.train.check import Question, check_model
from shop import write_shop

LAYER = "{Dense: {units: 8, activation: relu}}"
COMPILE = "compile: {metrics: [AUC]}"


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Path]:
    write_shop(tmp_path, rows=200)
    with contextlib.chdir(tmp_path):
        yield tmp_path / "shop.yaml"
    sys.modules.pop("own_shop", None)


def change(file: Path, old: str, new: str) -> int:
    """Write `new` in place of `old`; return its line."""
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))
    return text[: text.index(old)].count("\n") + 1


def test_run_refuses_it_before_spark_starts_and_validate_when_asked(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = change(shop, LAYER, "{Dens: {units: 8, activation: relu}}")
    assert main(["validate", "shop.yaml"]) == 0
    assert main(["run", "shop.yaml"]) == 2
    found = capsys.readouterr()
    assert f"shop.yaml:{line}:" in found.err
    assert "Keras has no layer 'Dens'; did you mean 'Dense'?" in found.err
    assert "prepare starts" not in found.out
    assert not list(shop.parent.glob("lake/shop/runs/*"))
    change(shop, "Dens:", "Dense:")
    assert main(["validate", "--model", "shop.yaml"]) == 0
    assert "the model can be built" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (LAYER, "{Dense: {unitz: 8}}", "unitz: Dense has no argument 'unitz'; did you mean 'units'?"),
        (LAYER, "{Dense: {units: many}}", "Dense refuses its arguments:"),
        (LAYER, "{Dense: {activation: relu}}", "Dense needs the argument 'units'"),
        (LAYER, "{Dense: {units: 8, activation: rellu}}", "Keras has no activation 'rellu'; did you mean 'relu'?"),
        (
            LAYER,
            "{Dense: {units: 8, kernel_regularizer: {L3: {l2: 0.1}}}}",
            "kernel_regularizer.L3: Keras has no regularizer 'L3'",
        ),
        (LAYER, "{Conv2D: {filters: 8, kernel_size: 3}}", "the layer does not fit its input (None, 10):"),
        (LAYER, "own_shop:Layer", "No module named 'own_shop'"),
        (COMPILE, "compile: {optimizer: Adamm}", "Keras has no optimizer 'Adamm'; did you mean 'Adam'?"),
        (
            COMPILE,
            "compile: {optimizer: {Adam: {learning_rate: {CosineDecy: {decay_steps: 9}}}}}",
            "Keras has no learning rate schedule 'CosineDecy'; did you mean 'CosineDecay'?",
        ),
        (COMPILE, "compile: {loss: binary_crossentropi}", "did you mean 'binary_crossentropy'?"),
        (COMPILE, "compile: {metrics: [SparseCategoricalAccuracy]}", "is no metric for a label of 0 and 1"),
        (
            COMPILE,
            "callbacks: [{EarlyStopping: {monitor: val_acc}}]",
            "nothing is called 'val_acc'; expected one of: loss, val_loss",
        ),
        (
            COMPILE,
            "callbacks: [{EarlyStoping: {}}]",
            "Keras has no callback 'EarlyStoping'; did you mean 'EarlyStopping'",
        ),
        (COMPILE, "devices: gpu:2", "gpu:2 asks for 2 GPU(s), and TensorFlow sees 0: use `auto` or `cpu`"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(shop: Path, old: str, new: str, said: str) -> None:
    line = change(shop, old, new)
    answer = check_model(Question(path="shop.yaml", overrides=[], dataset=None))
    assert answer["problem"] is not None
    assert answer["problem"].startswith(f"shop.yaml:{line}:")
    assert said in answer["problem"]


def test_a_function_that_ends_the_process_is_a_fault_of_the_function(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shop.parent / "own_shop.py").write_text("import os\ndef model(data):\n    print('almost')\n    os._exit(7)\n")
    assert main(["run", "shop.yaml", "--set", "train.model=own_shop:model"]) == 2
    assert "building the model ended its process with exit code 7" in capsys.readouterr().err


def test_more_devices_than_rows_of_a_batch_are_refused(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["validate", "--model", "shop.yaml", "--set", "train.devices=cpu:4", "--set", "train.fit.batch_size=3"])
        == 2
    )
    assert "a batch of 3 rows can't be shared by 4 devices (cpu:4), of which each needs one" in capsys.readouterr().err
    optimizer = "train.compile.optimizer={Adam: {gradient_accumulation_steps: 2}}"
    assert main(["validate", "--model", "shop.yaml", "--set", "train.devices=cpu:2", "--set", optimizer]) == 2
    assert "Keras accumulates gradients on one device only, and there are 2" in capsys.readouterr().err
    several = "train.compile.steps_per_execution=4"
    assert main(["validate", "--model", "shop.yaml", "--set", "train.devices=cpu:2", "--set", several]) == 2
    assert "Keras runs several steps at once on one device only, and there are 2" in capsys.readouterr().err
