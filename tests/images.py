"""What the tests of images need: Debian as a base, the image built from docker/Dockerfile, and containers of it.

Where no Docker engine runs, buildah builds and podman runs, on a base that debootstrap makes. What pip is set to here
(indexes, certificates) is mounted while the image is built, and does not get into it.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lakefit.console import repeated
from shop import ROOT

TOOLS = ("buildah", "podman", "debootstrap", "runc", "iptables")
BASE = "localhost/debian:bookworm"
IMAGE = "localhost/lakefit"
STORAGE = ROOT / "build/containers"

CONTAINERS_CONF = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
"""
STORAGE_CONF = """
[storage]
driver = "overlay"
runroot = "{0}/run"
graphroot = "{0}/root"
"""


def why_not() -> str | None:
    """Return why no image can be built here, if so."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} are not installed: apt-get install {' '.join(TOOLS)}"
    return None if os.getuid() == 0 else "containers are started as root here"


def environment() -> dict[str, str]:
    """Return the environment in which images and containers are our own: below build/, gone with `make clean`."""
    STORAGE.mkdir(parents=True, exist_ok=True)
    (STORAGE / "containers.conf").write_text(CONTAINERS_CONF, encoding="utf-8")
    (STORAGE / "storage.conf").write_text(STORAGE_CONF.format(STORAGE), encoding="utf-8")
    return {
        **os.environ,
        "CONTAINERS_CONF": str(STORAGE / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(STORAGE / "storage.conf"),
        "STORAGE_DRIVER": "overlay",
        "LAKEFIT_IMAGE": IMAGE,
    }


def call(*command: str, timeout: float = 1200, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=timeout, check=False
    )
    if check:
        assert done.returncode == 0, (command, done.stdout[-3000:], done.stderr[-3000:])
    return done


def build() -> None:
    """Build the image for CPUs."""
    if call("podman", "image", "exists", BASE, check=False).returncode:
        folder = STORAGE / "debian"
        call("debootstrap", "--variant=minbase", "bookworm", str(folder))
        for path in ("var/cache/apt", "var/lib/apt/lists"):
            shutil.rmtree(folder / path)
            (folder / path).mkdir()
        call("sh", "-c", f"tar -C {folder} -c . | podman import - {BASE}")
        shutil.rmtree(folder)
    call(
        "buildah", "bud", "--isolation", "chroot", "--network", "host", "--format", "docker", "--layers",
        "--file", "docker/Dockerfile", *pip_settings(), "--build-arg", f"BASE={BASE}", "--tag", IMAGE, ".",
    )  # fmt: skip


def pip_settings() -> list[str]:
    """Return options that mount what pip is set to here, and the folders and certificates that this names."""
    pip = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(pip, capture_output=True, text=True, check=True).stdout
    settings: dict[str, str] = dict(re.findall(r"^(?:global|:env:)\.([\w-]+)='(.*)'$", listed, re.MULTILINE))
    lines, mounts = ["[global]"], []
    for name, value in settings.items():
        if name not in ("cert", "index-url", "extra-index-url", "find-links", "trusted-host"):
            continue
        for path in {match.removesuffix("/simple") for match in re.findall(r"(?:^|(?<=file://)|(?<= ))/\S+", value)}:
            inside = f"/run/machine{path}"
            mounts += ["--volume", f"{path}:{inside}:ro"]
            value = value.replace(path, inside)
        lines.append(f"{name} = {value}")
    (STORAGE / "pip.conf").write_text("\n".join([*lines, ""]), encoding="utf-8")
    return [*mounts, "--volume", f"{STORAGE / 'pip.conf'}:/etc/pip.conf:ro"]


@contextmanager
def health_checks() -> Iterator[None]:
    """Check the health of running containers every few seconds: podman leaves that to systemd, which may not run."""

    def check() -> None:
        for name in call("podman", "ps", "--quiet").stdout.split():
            call("podman", "healthcheck", "run", name, check=False)

    with repeated(check, 3):
        yield
