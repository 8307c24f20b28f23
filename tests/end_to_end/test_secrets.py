"""Secrets come by the environment; a planted one is found in nothing that a run writes or says, however it ends."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from faulty import PLAIN
from lakefit.cli import main
from lakefit.config.sections import Section
from lakefit.config.source import PathText
from lakefit.dataset.manifest import read_manifest
from lakefit.errors import InputError, without_credentials
from lakefit.feed.dataset import open_dataset
from shop import write_shop

Command = Callable[..., subprocess.CompletedProcess[str]]
SECRET = "sesame-7f3a91"
SECRETS = {
    "DB_PASSWORD": SECRET,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_SESSION_TOKEN": SECRET,
    "AWS_ACCESS_KEY_ID": "AKIAPLANTED",
}
HOOK = "hooks: {on_failure: tee failure.json}\n"
JDBC = """{format: jdbc, options: {url: "jdbc:nothing://user:${DB_PASSWORD}@127.0.0.1:9/db?password=${DB_PASSWORD}",
      dbtable: orders, user: "${DB_PASSWORD}", password: "${DB_PASSWORD}"}}"""


def found_in(folder: Path, said: str) -> list[str]:
    """Return where the secret is to be read: files, and what was said."""
    files = [path for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    return [*map(str, files), *(line for line in said.splitlines() if SECRET in line)]


def test_a_run_that_ends_well_writes_no_secret(lakefit: Command, tmp_path: Path) -> None:
    write_shop(tmp_path, 600)
    (tmp_path / "shop.yaml").write_text(PLAIN + HOOK + "score: {input: orders-0.csv, output: scored, keys: [id]}\n")
    done = lakefit("run", "shop.yaml", "--json", "-v", cwd=tmp_path, env=SECRETS)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "scored/_score.json").is_file()
    assert found_in(tmp_path, done.stdout + done.stderr) == []


def test_a_database_that_refuses_is_told_of_without_its_password(lakefit: Command, tmp_path: Path) -> None:
    write_shop(tmp_path, 10)
    start, end = PLAIN.index("      path: orders-*.csv"), PLAIN.index("  rows: orders")
    text = PLAIN[:start].rstrip().removesuffix("orders:") + f"orders: {JDBC}\n" + PLAIN[end:]
    (tmp_path / "shop.yaml").write_text(text + HOOK)
    for command in ("validate", "prepare", "history"):
        done = lakefit(command, "shop.yaml", "--json", "-v", cwd=tmp_path, env=SECRETS)
        assert done.returncode == (2 if command == "prepare" else 0), (command, done.stdout, done.stderr)
        assert found_in(tmp_path, done.stdout + done.stderr) == [], command
    assert (tmp_path / "failure.json").is_file()


@pytest.mark.parametrize(
    ("command", "value"),
    [
        ("validate", f"output.path=s3://key:{SECRET}@bucket/lake"),
        ("prepare", f"output.path=s3://key:{SECRET}@bucket/lake"),
        ("prepare", f"output.path=s3://bucket/lake?secret_key={SECRET}"),
        ("validate", f"source.tables.orders.path=s3://key:{SECRET}@bucket/orders.csv"),
        ("prepare", f"source.tables.orders.path=s3://key:{SECRET}@bucket/orders.csv"),
        ("prepare", f"score={{input: orders-0.csv, output: 's3://key:{SECRET}@bucket/scored'}}"),
        ("train", f"train.warm_start=s3://key:{SECRET}@bucket/artifact"),
        # Keys of AWS hold slashes, and passwords what they like.
        ("validate", f"output.path=s3://key:ab/{SECRET}@bucket/lake"),
        ("validate", f"output.path=s3://key:p@{SECRET}@bucket/lake"),
        ("validate", f"output.path=abfss://lake@account/x?sig={SECRET}"),
    ],
)
def test_an_address_with_a_secret_is_refused_and_not_repeated(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    command: str,
    value: str,
) -> None:
    write_shop(tmp_path, 10)
    (tmp_path / "shop.yaml").write_text(PLAIN)
    monkeypatch.chdir(tmp_path)
    assert main([command, "shop.yaml", "--json", "--set", value]) == 2
    said = "".join(capfd.readouterr())
    assert "ends up in logs" in said
    assert found_in(tmp_path, said) == []


def test_the_options_of_score_are_looked_at_as_the_file_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write_shop(tmp_path, 10)
    (tmp_path / "shop.yaml").write_text(PLAIN)
    monkeypatch.chdir(tmp_path)
    output = f"s3://key:{SECRET}@bucket/scored"
    assert main(["score", "shop.yaml", "--input", "orders-0.csv", "--output", output, "-v"]) == 2
    said = "".join(capfd.readouterr())
    assert "ends up in logs" in said
    assert SECRET not in said


@pytest.mark.parametrize("folder", ["key=1", "customer_key=7/token=x", "password=none"])
def test_a_folder_of_a_partition_is_no_secret(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir(parents=True)
    assert PathOf(path=str(tmp_path / folder)).path == str(tmp_path / folder)
    assert PathOf(path=f"s3://bucket/{folder}/*.csv").path == f"s3://bucket/{folder}/*.csv"
    assert without_credentials(f"no file matches s3://bucket/{folder}/x.csv") == (
        f"no file matches s3://bucket/{folder}/x.csv"
    )


class PathOf(Section):
    """path: of a pipeline file."""

    path: PathText


@pytest.mark.parametrize("path", ["../secret.parquet", "/etc/passwd", "train/../../secret.parquet", "train//x"])
def test_a_manifest_does_not_name_files_outside_of_its_dataset(dataset: Path, path: str) -> None:
    manifest = dataset / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text.replace(read_manifest(dataset).splits["train"].files[0].path, path))
    with pytest.raises(InputError, match=f"{path}' is no path inside the dataset's folder"):
        open_dataset(dataset)
    manifest.write_text(text)


@pytest.fixture(scope="module")
def dataset(lakefit: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    write_shop(folder, 600)
    (folder / "shop.yaml").write_text(PLAIN)
    assert lakefit("prepare", "shop.yaml", cwd=folder).returncode == 0
    (found,) = (folder / "lake/shop/datasets").iterdir()
    return found


@pytest.mark.parametrize("name", ["../shop", "/shop", "a/b", "..", "a b", ""])
def test_a_name_that_is_a_path_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    write_shop(folder, 10)
    (folder / "shop.yaml").write_text(PLAIN)
    monkeypatch.chdir(folder)
    assert main(["prepare", "shop.yaml", "--set", f"name='{name}'"]) == 2
    assert "name: " in capfd.readouterr().err
    assert os.listdir(tmp_path) == ["here"]
    assert not (folder / "lake").exists()
