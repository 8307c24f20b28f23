"""The image and the cluster of docker/: built and run for real, without a Docker engine."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import images
from images import IMAGE, call
from shop import ROOT, events

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(images.why_not() is not None, reason=images.why_not() or ""),
    pytest.mark.skipif(not (ROOT / "build/deploy/bin").is_dir(), reason="build/deploy is made by `make test-all`"),
    # All in one process: one storage, one image.
    pytest.mark.xdist_group("images"),
]
COMPOSE = str(ROOT / "build/deploy/bin/podman-compose")
# As in compose.yaml.
LOCKED = (
    "--read-only",
    "--tmpfs",
    "/tmp",
    "--cap-drop",
    "ALL",
    "--security-opt",
    "no-new-privileges",
    "--network",
    "none",
)


@pytest.fixture(scope="module")
def image() -> dict[str, Any]:
    images.build()
    (described,) = json.loads(call("podman", "image", "inspect", IMAGE).stdout)
    return described  # type: ignore[no-any-return]


@contextmanager
def volume(name: str) -> Iterator[str]:
    call("podman", "volume", "rm", "--force", name)
    call("podman", "volume", "create", name)
    try:
        yield name
    finally:
        call("podman", "volume", "rm", "--force", name)


def inside(*command: str, data: str | None = None, check: bool = True) -> str:
    """Run `lakefit`, or another program, in a container in which nothing but its volumes can be written."""
    program, *arguments = command
    mounts = ["--volume", f"{data}:/data"] if data is not None else []
    entry = [] if program == "lakefit" else ["--entrypoint", program]
    return call(
        "podman", "run", "--rm", *LOCKED, *mounts, "--volume", "/scratch", *entry, IMAGE, *arguments, check=check
    ).stdout


def file_sums(manifest: dict[str, Any]) -> dict[str, str]:
    files = [file for split in manifest["splits"].values() for file in split["files"]]
    return {file["path"]: file["sha256"] for file in [*files, *manifest["duplicates"]]}


def manifest_in(data: str) -> dict[str, Any]:
    lake = "data/flights/lake/flights"
    dataset = json.loads(inside("cat", f"{lake}/current.json", data=data))["dataset"]
    return json.loads(inside("cat", f"{lake}/datasets/{dataset}/manifest.json", data=data))  # type: ignore[no-any-return]


def test_the_image_is_small_and_holds_no_more_than_it_needs(image: dict[str, Any]) -> None:
    assert image["Size"] <= 3.5e9
    assert image["Config"]["User"] == "lakefit"
    assert image["Healthcheck"]["Test"][0] == "CMD"
    assert not [line for line in image["Config"]["Env"] if "pip" in line.lower() or "token" in line.lower()]
    found = inside("sh", "-c", "id -u; for tool in gcc cc make pip pip3 git curl; do command -v $tool; done; true")
    assert found.split() == ["1000"]
    assert inside("lakefit", "--version").startswith("lakefit ")
    assert inside("python3", "/opt/lakefit/health.py") == "lakefit 0.1.0\n"
    # Of what the machine that built it was set to there are the mount points alone.
    assert inside("sh", "-c", "find /etc/pip.conf /run/machine -type f -size +0 2>/dev/null; true") == ""
    assert inside("sh", "-c", "touch /opt/lakefit/x 2>&1 || true").strip().endswith("Read-only file system")


def test_the_demo_in_one_container_and_on_a_cluster_of_them_give_the_same_dataset(image: dict[str, Any]) -> None:
    with volume("lakefit-alone") as data:
        inside("lakefit", "example", "flights", "data/flights", data=data)
        said = events(inside("lakefit", "run", "data/flights/flights.yaml", "--json", data=data))
        assert said[-1]["exit_code"] == 0
        assert said[-1]["metrics"]["test"]["auc"] > 0.72
        again = events(inside("lakefit", "run", "data/flights/flights.yaml", "--json", data=data))
        assert again[-1]["current"]
        alone = manifest_in(data)

    compose = (COMPOSE, "--file", "docker/compose.yaml")
    services = ("master", "worker-1", "worker-2", "history", "tensorboard")
    try:
        with images.health_checks():
            call(*compose, "up", "--detach")
            # Docker's own starts a service that is named, whatever its profile.
            call(*compose, "--profile", "demo", "run", "--rm", "-T", "example")
            ran = call(*compose, "--profile", "run", "run", "--rm", "-T", "run")
            assert "score is done" in ran.stdout, (ran.stdout, ran.stderr)
            pages = {port: _page(port) for port in (8080, 18080, 6006)}
            listed = json.loads(_page(18080, "api/v1/applications"))
            cluster = json.loads(_page(8080, "json/"))
            states = _health(services)
        on_cluster = manifest_in("lakefit_data")
    finally:
        call(*compose, "down", "--volumes", check=False)
    assert file_sums(on_cluster) == file_sums(alone)
    assert on_cluster["ledger"] == alone["ledger"]
    assert all(pages.values())
    assert [worker["state"] for worker in cluster["workers"]] == ["ALIVE", "ALIVE"]
    assert listed[0]["attempts"][0]["completed"]
    assert set(states.values()) == {"healthy"}, states


def _page(port: int, path: str = "") -> str:
    for _ in range(60):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=10) as page:
                return page.read().decode()  # type: ignore[no-any-return]
        except (urllib.error.URLError, ConnectionError):
            time.sleep(1)
    raise AssertionError(f"nothing answers on port {port}")


def _health(services: tuple[str, ...]) -> dict[str, str]:
    shown = "{{.State.Health.Status}}"
    for _ in range(30):
        states = {
            name: call("podman", "inspect", "--format", shown, f"lakefit_{name}_1").stdout.strip() for name in services
        }
        if set(states.values()) == {"healthy"}:
            break
        time.sleep(3)
    return states
