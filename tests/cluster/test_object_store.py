"""A pipeline whose raw files and whose output are objects: what a folder gives, by single writes of objects alone."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from faulty import PLAIN
from fitting import result_of
from lakefit.dataset import object_path
from lakefit.dataset.conditional import ChangedError, look, replace
from lakefit.dataset.inputs import UnreadableError, file_columns, list_inputs
from lakefit.dataset.layout import SCORE_LOCK
from lakefit.dataset.object_path import ObjectPath, matching
from lakefit.dataset.publish import ensure_ours, has_others, remove_unfinished, write_json
from lakefit.errors import InputError, LakefitError
from lakefit.run.lock import holder, run_lock
from object_store import SECRET, ObjectStore, Operation, store_of_this_process
from shop import parquet_bytes, write_shop

EPOCHS = 40
SCORE = "score: {{input: '{raw}/orders-1.csv', output: '{scored}', keys: [id]}}\n"


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with store_of_this_process() as store:
        yield store


@pytest.fixture
def place(store: ObjectStore, request: pytest.FixtureRequest) -> ObjectPath:
    """A bucket of its own."""
    name = f"bucket-{abs(hash(request.node.nodeid))}"
    store.make(name)
    return ObjectPath(store.address(name))


def pipeline(raw: str, lake: str, scored: str, epochs: int = EPOCHS) -> str:
    text = PLAIN.replace("orders-*.csv", f"{raw}/orders-*.csv").replace("{path: lake,", f"{{path: '{lake}',")
    text = text.replace("{epochs: 1, batch_size: 64}", f"{{epochs: {epochs}, batch_size: 32}}")
    return text + SCORE.format(raw=raw, scored=scored)


def begun(store: ObjectStore, pipeline_file: str, cwd: Path) -> "subprocess.Popen[bytes]":
    """Begin a run in a group of processes of its own, which can be killed."""
    command = [sys.executable, "-m", "lakefit", "run", pipeline_file]
    return subprocess.Popen(command, cwd=cwd, env={**os.environ, **store.environment}, start_new_session=True)


def downloaded(store: ObjectStore, bucket: str, folder: Path) -> Path:
    files, base = fs.FileSystem.from_uri(store.address(bucket))
    folder.mkdir()
    fs.copy_files(base, str(folder), source_filesystem=files)
    return folder


def test_killed_and_begun_again_a_run_on_objects_gives_what_folders_give(
    store: ObjectStore, tmp_path: Path, lakefit: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    write_shop(raw, 1500)
    (tmp_path / "here.yaml").write_text(pipeline(str(raw), str(tmp_path / "lake"), str(tmp_path / "scored")))
    # Spark's spelling is understood, too.
    (raw / "there.yaml").write_text(pipeline("s3a://raw", "s3://lake/out", "s3://lake/scored"))
    store.upload(raw, "raw")
    store.make("lake")
    here = lakefit("run", "here.yaml", cwd=tmp_path)
    assert here.returncode == 0, here.stderr

    first = begun(store, "s3://raw/there.yaml", tmp_path)
    runs = ObjectPath(store.address("lake/out/shop/runs"))
    while first.poll() is None and len(matching(runs, "*/checkpoints/*")) < 2:
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    assert not list(matching(runs.parent, "current.json"))
    # The lock is that of a process which is gone: its lease has to run out.
    replace(runs.parent / "lock", {}, look(runs.parent / "lock"))
    there = lakefit("run", "s3://raw/there.yaml", "--json", cwd=tmp_path, env=store.environment)
    assert there.returncode == 0, there.stderr
    said = [json.loads(line) for line in there.stdout.splitlines()]
    assert [event for event in said if event["event"] == "resume"]
    again = lakefit("run", "s3://raw/there.yaml", "--exit-code", cwd=tmp_path, env=store.environment)
    assert again.returncode == 10, (again.stdout, again.stderr)

    lake = downloaded(store, "lake", tmp_path / "fetched") / "out/shop"
    (local,) = (tmp_path / "lake/shop/datasets").iterdir()
    (remote,) = (lake / "datasets").iterdir()
    assert parquet_bytes(remote) == parquet_bytes(local)
    (ran,), (fetched,) = (tmp_path / "lake/shop/runs").iterdir(), (lake / "runs").iterdir()
    # Weights, history, and the points of TensorBoard's curves, none of them twice.
    assert result_of(fetched) == result_of(ran)
    scored = json.loads((tmp_path / "fetched/scored/_score.json").read_text())
    assert scored["scored"] == json.loads((tmp_path / "scored/_score.json").read_text())["scored"]
    assert {path.name for path in (tmp_path / "fetched/scored").glob("*.parquet")} == {
        name for name in scored["files"] if "/" not in name
    }
    assert SECRET not in f"{there.stdout}{there.stderr}{again.stdout}{again.stderr}"
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]
    _check_operations([one for one in store.operations() if one.path.startswith("/lake/")])


def test_parquet_that_score_could_not_read_is_refused_before_the_training(
    store: ObjectStore, tmp_path: Path, lakefit: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    numbers = pa.array([1, 2], pa.int32())
    columns = dict.fromkeys(("id", "day", "amount", "weight", "stamp", "late"), numbers) | {"city": ["x", "y"]}
    pq.write_table(pa.table(columns), raw / "orders-1.parquet")
    store.upload(raw, "parquet")
    text = pipeline("s3://parquet", "lake", "scored", 1).replace(".csv", ".parquet").replace("csv", "parquet")
    options, schema = (line for line in text.splitlines(True) if line.strip().startswith(("options:", "schema:")))
    (tmp_path / "shop.yaml").write_text(text.replace(options, "").replace(schema, ""))
    refused = lakefit("run", "shop.yaml", cwd=tmp_path, env=store.environment)
    assert refused.returncode == 2, refused.stderr
    assert "score reads Parquet with Spark, which has no connector for the store of s3://parquet" in refused.stderr
    assert "shop.yaml:" in refused.stderr
    assert not list((tmp_path / "lake/shop").glob("datasets/*"))


@pytest.mark.slow
def test_killed_before_any_write_that_publishes_a_run_on_objects_ends_as_one_never_killed(
    store: ObjectStore, tmp_path: Path, lakefit: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    write_shop(raw, 600)
    (tmp_path / "here.yaml").write_text(pipeline(str(raw), str(tmp_path / "lake"), str(tmp_path / "scored"), 2))
    (raw / "there.yaml").write_text(pipeline("s3://raws", "s3://lakes/out", "s3://lakes/scored", 2))
    store.upload(raw, "raws")
    store.make("lakes")
    here = lakefit("run", "here.yaml", cwd=tmp_path)
    assert here.returncode == 0, here.stderr

    output = ObjectPath(store.address("lakes/out/shop"))
    for write in (
        "/datasets/.*/train/part-", "/datasets/.*/manifest.json$", "/metrics.json$", "/artifacts/.*/model.keras$",
        "/artifacts/.*/artifact.json$", "/current.json$", "/scored/part-", "/scored/_score.json$",
    ):  # fmt: skip
        store.hold(write)
        killed = begun(store, "s3://raws/there.yaml", tmp_path)
        while killed.poll() is None and not store.holds():
            time.sleep(0.02)
        os.killpg(killed.pid, signal.SIGKILL)
        assert killed.wait() == -signal.SIGKILL, f"it never wrote {write}"
        in_use = look(output / "current.json").value
        assert bool(in_use) == ("scored" in write)
        if in_use:
            assert (output / "artifacts" / in_use["artifact"] / "artifact.json").exists()
        # Its leases would have to run out.
        for lock in (output / "lock", ObjectPath(store.address("lakes/scored")) / SCORE_LOCK):
            replace(lock, {}, look(lock))
    there = lakefit("run", "s3://raws/there.yaml", cwd=tmp_path, env=store.environment)
    assert there.returncode == 0, there.stderr

    fetched = downloaded(store, "lakes", tmp_path / "fetched")
    assert not [path for path in fetched.rglob("*") if path.name.startswith((".staging", ".scratch", ".write"))]
    (local,), (remote,) = (tmp_path / "lake/shop/datasets").iterdir(), (fetched / "out/shop/datasets").iterdir()
    assert parquet_bytes(remote) == parquet_bytes(local)
    (ran,), (run,) = (tmp_path / "lake/shop/runs").iterdir(), (fetched / "out/shop/runs").iterdir()
    assert result_of(run) == result_of(ran)
    scored = json.loads((fetched / "scored/_score.json").read_text())
    assert scored["scored"] == json.loads((tmp_path / "scored/_score.json").read_text())["scored"]
    # What the killed ones have left of the scored rows is gone.
    assert {str(path.relative_to(fetched / "scored")) for path in (fetched / "scored").rglob("*.parquet")} == set(
        scored["files"]
    )
    here_scored, there_scored = (
        pq.read_table(folder).drop_columns(["_artifact", "_dataset", "_row"]).sort_by("id").to_pydict()
        for folder in (tmp_path / "scored", fetched / "scored")
    )
    assert there_scored == here_scored


def _check_operations(operations: list[Operation]) -> None:
    """What was published, by single writes of objects: what says that a folder is whole comes last."""
    assert not [one for one in operations if one.copied], "nothing is renamed or copied"
    written = [one.path for one in operations if one.method in ("PUT", "POST") and one.status < 300]
    for marker in ("manifest.json", "artifact.json"):
        (place,) = (place for place, path in enumerate(written) if path.endswith(marker))
        folder = written[place].removesuffix(marker)
        assert not [path for path in written[place + 1 :] if path.startswith(folder) and not path.endswith("/")]
        assert [path for path in written[:place] if path.startswith(folder)]
    shared = [one for one in operations if one.path.endswith(("/current.json", "/lock")) and one.method == "PUT"]
    assert {one.path.rpartition("/")[2] for one in shared} == {"current.json", "lock"}
    assert all(one.condition for one in shared)


def test_an_object_is_replaced_only_as_it_was_seen(place: ObjectPath) -> None:
    path = place / "current.json"
    nothing = look(path)
    assert nothing.value == {}
    first = replace(path, {"run": "a"}, nothing)
    with pytest.raises(ChangedError, match="somebody else"):
        replace(path, {"run": "b"}, nothing)
    second = replace(path, {"run": "b"}, first)
    with pytest.raises(ChangedError):
        replace(path, {"run": "c"}, first)
    # The same request again, whose answer was lost.
    assert replace(path, {"run": "b"}, first).etag == second.etag
    path.unlink()
    with pytest.raises(ChangedError):
        replace(path, {"run": "c"}, second)


def test_the_lock_is_held_by_one_run_and_taken_over_when_its_lease_has_run_out(place: ObjectPath) -> None:
    lock = place / "shop/lock"
    with run_lock(lock, lease_s=3) as lease:
        lease.check()
        assert holder(lock)["pid"] == os.getpid()
        waited: list[str] = []
        with pytest.raises(InputError, match="another run is writing"), run_lock(lock, waiting=waited.append):
            pass
        assert len(waited) == 1
        lease.check()
        # Written by this run in a request whose answer it has never seen: it goes on to renew.
        unheard = replace(lock, {**look(lock).value, "renewed": "unheard of"}, look(lock))
        for _ in range(100):
            if look(lock).value["renewed"] != unheard.value["renewed"]:
                break
            time.sleep(0.1)
        assert look(lock).value["renewed"] != unheard.value["renewed"]
        lease.check()
    assert holder(lock) == {}

    # Of a machine that is gone: it renews no more.
    replace(lock, {"pid": 1, "host": "gone", "since": "then", "lease_s": 2, "token": "x"}, look(lock))
    began = time.monotonic()
    with run_lock(lock, lease_s=3) as lease:
        assert time.monotonic() - began > 0.5
        # Another one has taken over meanwhile: it is found, and the lock stays the other's.
        replace(lock, {"pid": 2, "host": "other", "since": "now", "lease_s": 60, "token": "y"}, look(lock))
        with pytest.raises(LakefitError, match="has lost its lock"):
            lease.check()
    assert look(lock).value["token"] == "y"


def four_at_once(begin: Callable[[], None]) -> None:
    """Call a function in four threads, which begin together."""
    barrier = threading.Barrier(4)

    def together() -> None:
        barrier.wait()
        begin()

    threads = [threading.Thread(target=together) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_of_runs_that_begin_at_once_one_holds_the_lock(place: ObjectPath) -> None:
    lock, held, refused = place / "lock", [], []

    def begin() -> None:
        try:
            with run_lock(lock, lease_s=24):
                held.append(look(lock).value["token"])
                # Longer than the others look for signs of life.
                time.sleep(6)
        except InputError as error:
            refused.append(str(error))

    four_at_once(begin)
    assert (len(held), len(refused)) == (1, 3)


def test_of_several_that_wait_for_one_dead_holder_one_takes_over(place: ObjectPath) -> None:
    lock = place / "lock"
    replace(lock, {"pid": 1, "host": "gone", "since": "then", "lease_s": 3, "token": "x"}, look(lock))
    held, refused = [], []

    def begin() -> None:
        try:
            with run_lock(lock, lease_s=12) as lease:
                held.append(lease)
                time.sleep(3)
                lease.check()
        except InputError as error:
            refused.append(str(error))

    four_at_once(begin)
    assert (len(held), len(refused)) == (1, 3)


def test_a_store_that_fails_for_a_while_is_no_damaged_file(
    store: ObjectStore, place: ObjectPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{store.endpoint}")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setattr(object_path, "_WAITS_S", ())
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    (place / "x.parquet").upload(tmp_path / "x.parquet")
    store.fail("503", 1_000)
    with pytest.raises(OSError, match="AWS Error") as error:
        file_columns(str(place / "x.parquet"), "parquet")
    assert not isinstance(error.value, UnreadableError)
    store.fail("503", 0)
    assert file_columns(str(place / "x.parquet"), "parquet") == {"x": "BIGINT"}
    (place / "x.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(UnreadableError):
        file_columns(str(place / "x.parquet"), "parquet")


def test_what_a_killed_score_has_left_is_in_nobodys_way_and_not_taken_for_its_result(place: ObjectPath) -> None:
    output = place / "scored"
    ensure_ours(output)
    (output / "part-00000-0123abcd.parquet").write_bytes(b"of a run that was killed")
    (output / "_rejects/part-00000-0123abcd.parquet").write_bytes(b"of a run that was killed")
    ensure_ours(output)
    assert has_others(output)
    listed = "part-00000-89abcdef.parquet"
    (output / listed).write_bytes(b"of a run that ended")
    write_json(output / "_score.json", {"files": {listed: 1}})
    assert has_others(output), "before the killed run's are removed, both are there"
    for left in ("part-00000-0123abcd.parquet", "_rejects/part-00000-0123abcd.parquet"):
        (output / left).unlink()
    assert not has_others(output)
    other = place / "other"
    (other / "part-00000.parquet").write_bytes(b"somebody's")
    with pytest.raises(InputError, match="was not written by `lakefit score`"):
        ensure_ours(other)


def test_half_an_artifact_goes_but_for_one_that_is_in_use(place: ObjectPath) -> None:
    artifacts = place / "shop/artifacts"
    for name in ("half", "whole", "remade"):
        (artifacts / name / "model.keras").write_bytes(b"x")
    write_json(artifacts / "whole/artifact.json", {})
    write_json(place / "shop/current.json", {"dataset": None, "run": "r", "artifact": "remade"})
    remove_unfinished(artifacts, "artifact.json")
    assert sorted(path.name for path in artifacts.iterdir()) == ["remade", "whole"]


def test_names_that_mean_something_in_an_address_are_names_below_it(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{store.endpoint}")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    for bucket, name in (("araw", "key=1/wh?t.csv"), ("braw", "key=2/x.csv")):
        store.make(bucket)
        (ObjectPath(f"s3://{bucket}") / name).write_bytes(b"1\n")
    files = list_inputs(("s3://araw/key=*", "s3://braw/*/"), "table 'a'")
    assert [file.name for file in files] == ["araw/key=1/wh?t.csv", "braw/key=2/x.csv"]
    assert [ObjectPath(file.path).read_bytes() for file in files] == [b"1\n", b"1\n"]


def test_a_bucket_that_is_not_there_is_told_from_one_that_holds_nothing_of_the_name(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{store.endpoint}")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    store.make("empty")
    with pytest.raises(InputError, match=r"no object matches 's3://empty/\*\.csv'\.$"):
        list_inputs(("s3://empty/*.csv",), "table 'a'")
    with pytest.raises(InputError, match=r"There is no bucket 'nowhere'\. Look at"):
        list_inputs(("s3://nowhere/*.csv",), "table 'a'")


def test_a_store_that_takes_no_notice_of_conditions_is_refused(store: ObjectStore, place: ObjectPath) -> None:
    store.fail("careless", 100)
    with pytest.raises(InputError, match="whatever the condition"), run_lock(place / "lock"):
        pass
    store.fail("careless", 0)


@pytest.mark.parametrize("address", ["s3://lake/../raw/out", "s3a://lake/a/./b", "s3://../x"])
def test_a_step_up_in_an_address_is_refused(address: str) -> None:
    with pytest.raises(InputError, match=r"\. and \.\. are no folders in an object store"):
        ObjectPath(address)


@pytest.mark.parametrize(
    ("said", "code"),
    [("NETWORK_CONNECTION", 3), ("SLOW_DOWN", 3), ("ACCESS_DENIED", 2), ("NO_SUCH_BUCKET", 2)],
)
def test_what_a_store_refuses_is_wrong_and_what_it_does_not_answer_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, said: str, code: int
) -> None:
    def files(self: ObjectPath) -> Iterator[tuple[ObjectPath, object]]:
        raise OSError(f"When listing objects: AWS Error {said} during ListObjectsV2 operation")

    monkeypatch.setattr(ObjectPath, "files", files)
    with pytest.raises(LakefitError, match=r"can't be listed: .* Look at the bucket.s name, at AWS_") as error:
        list_inputs(("s3://raw/orders/*.csv",), "table 'orders'")
    assert error.value.exit_code == code


def test_other_stores_and_credentials_in_an_address_are_refused() -> None:
    with pytest.raises(InputError, match="of S3 alone"):
        look(ObjectPath("gs://bucket/current.json"))
    with pytest.raises(InputError, match="ends up in logs") as error:
        ObjectPath("s3://key:sesame@bucket/lake")
    assert "sesame" not in str(error.value)
