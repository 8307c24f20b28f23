"""`lakefit tensorboard`: what a run has written, as the browser shows it, and for this machine alone."""

import json
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from fitting import fit, write_dataset
from models import SIGMOID

PIPELINE = """
name: fitting
source: {tables: {t: {path: raw.parquet, format: parquet}}, rows: t}
features: {numeric: {columns: [x, y, z]}}
label: {expression: y > 0}
output: {path: lake}
train: {model: {sequential: [Dense]}, fit: {epochs: 1, batch_size: 1}}
"""


# Says of each picture whether it has come, with what a plot has.
COLORS = """images => Promise.all(images.map(async image => {
    await image.decode();
    const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight).getContext("2d");
    canvas.drawImage(image, 0, 0);
    const pixels = new Uint32Array(canvas.getImageData(0, 0, image.naturalWidth, image.naturalHeight).data.buffer);
    return image.naturalWidth == 600 && new Set(pixels).size > 10;
}))"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline with a run of four epochs that has been evaluated."""
    from lakefit.dataset.features import LabelFeature
    from lakefit.evaluate.plots import write_plots
    from lakefit.evaluate.rows import SplitRows

    folder = tmp_path_factory.mktemp("pipeline")
    (folder / "p.yaml").write_text(PIPELINE, encoding="utf-8")
    section: dict[str, Any] = {
        "devices": "cpu",
        "model": {"sequential": [{"Dense": {"units": 4, "activation": "relu"}}, SIGMOID]},
        "fit": {"epochs": 4, "batch_size": 32},
    }
    run_dir = folder / "lake/fitting/runs/0123456789abcdef"
    fit(write_dataset(folder / "dataset"), run_dir, section)
    label, dice = LabelFeature(), np.random.default_rng(1)
    truth = dice.integers(0, 2, 200)
    write_plots(
        run_dir / "tensorboard/evaluation", [label], SplitRows({}, {"label": truth}, 200), {"label": dice.random(200)}
    )
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "lakefit", "tensorboard", "p.yaml", "--port", "0", "--json"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    event = json.loads(process.stdout.readline())
    assert event["event"] == "tensorboard"
    yield event["address"]
    process.terminate()
    process.communicate(timeout=30)


def test_it_serves_the_runs_of_the_pipeline_on_the_loopback_address_alone(address: str) -> None:
    parts = urlsplit(address)
    assert parts.hostname == "127.0.0.1"
    assert parts.port is not None
    with urllib.request.urlopen(f"{address}data/plugin/scalars/tags", timeout=60) as answer:
        tags = json.load(answer)
    of_run = "0123456789abcdef/tensorboard"
    assert "epoch_loss" in tags[f"{of_run}/train"]
    assert "epoch_loss" in tags[f"{of_run}/validation"]
    assert {"epoch_learning_rate", "epoch_gradient_norm", "epoch_weight_norm"} <= tags[f"{of_run}/train"].keys()
    for split in ("train", "validation"):
        with urllib.request.urlopen(
            f"{address}data/plugin/scalars/scalars?tag=epoch_loss&run={of_run}/{split}", timeout=60
        ) as answer:
            assert [step for _, step, _ in json.load(answer)] == [0, 1, 2, 3]
    # All of 127.0.0.0/8 is this machine, and a server that listens everywhere would answer there, too.
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", parts.port), timeout=5)


def test_a_browser_shows_curves_graph_and_images(address: str, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with playwright.sync_playwright() as started:
        page = started.chromium.launch(
            executable_path=browser, args=["--no-sandbox", "--disable-background-networking", "--disable-sync"]
        ).new_page(viewport={"width": 1400, "height": 1100})
        page.goto(f"{address}?tagFilter=epoch_loss|norm|share#timeseries")
        page.get_by_text("epoch_loss", exact=True).first.wait_for(timeout=60_000)
        chart = page.locator("scalar-card", has=page.get_by_text("epoch_loss", exact=True))
        for split in ("train", "validation"):
            chart.get_by_text(f"0123456789abcdef/tensorboard/{split}", exact=True).first.wait_for(timeout=60_000)
        page.screenshot(path=tmp_path / "curves.png")
        page.goto(f"{address}#images")
        page.reload()
        page.get_by_text("confusion_matrix").first.wait_for(timeout=60_000)
        pictures = page.locator("img[src*=individualImage]")
        pictures.nth(1).wait_for(timeout=60_000)
        assert pictures.evaluate_all(COLORS) == [True, True]
        page.screenshot(path=tmp_path / "images.png")
        page.goto(f"{address}#graphs")
        page.reload()
        page.locator("title", has_text="lakefit_model").first.wait_for(state="attached", timeout=60_000)
        page.screenshot(path=tmp_path / "graph.png")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "output.path=nowhere"], "nothing has been trained yet, so there is nothing to show"),
        (["--port", "taken"], "Name another one; 0 takes any that is free"),
    ],
)
def test_what_can_not_be_served_is_said(folder: Path, address: str, arguments: list[str], said: str) -> None:
    given = [str(urlsplit(address).port) if argument == "taken" else argument for argument in arguments]
    command = [sys.executable, "-m", "lakefit", "tensorboard", "p.yaml", *given]
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert process.returncode == 2, process.stderr
    assert said in process.stderr
    assert "Traceback" not in process.stderr
