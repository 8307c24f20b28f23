"""Pipeline files with anything done to them: a valid pipeline, or errors that say where, never a stack trace."""

import contextlib
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faulty import KILLS, PLAIN, Shop
from lakefit.cli import main
from lakefit.errors import InputError
from lakefit.run.validate import validate
from shop import PIPELINE, ROOT, write_shop

FLIGHTS = (ROOT / "conf/flights.yaml").read_text(encoding="utf-8")
VERBS = """
clean:
  - {column: amount, parse: number, decimal: ","}
  - {column: [city], text: [trim, collapse, lower], correct: {to: [Oslo, Rome], within: 1}}
  - {column: weight, clip: [0, 100], null_if: [0, "?"]}
  - {derive: amount * 2, as: twice}
require:
  - {that: amount < 1000, because: too dear, null: keep}
expect:
  - rows >= 10
  - share of null in amount <= 0.5
"""
FILES = (PIPELINE, PLAIN, FLIGHTS, PIPELINE.replace("clean:\n  - {column: city, text: [trim]}\n", VERBS))
SCALARS = (
    "", "~", "null", "true", "-1", "0", "1e400", "99999999999999999999999", "0x1F", ".nan", "-.inf", "2024-02-30",
    "''", '"', "'", "[]", "{}", "[[[]]]", "{a: {a: {a: 1}}}", "*a", "&a 1", "&a [*a]", "!!python/object:os.system x",
    "!!binary abc", "!!set {a}", "!x y", "<<: *a", "? a", "- - -", "|", ">-", "%YAML 1.1", "---", "...", "@", "`",
    "\u00a0", "\u2028", "\u202e", "\ufeff", "\U0001f600", "e\u0301", "\x00", "\x07", "\x1b[31m", "\t", "\r", "${HOME}",
    "${NOWHERE}", "../..", "/dev/null", "s3://a/b", "file://", "*", "SELECT", "a b", "a.b", "`a", "1; DROP TABLE x",
    "(" * 90, "[" * 200, "a" * 5000, "CASE WHEN", "x -> x", "COUNT(*) OVER ()", "ARRAY(1, NULL)", "MAP<INT, INT>",
    "STRUCT<a: INT>", "LATERAL VIEW explode(x)", "UNION SELECT 1", "EXISTS (SELECT 1)", "INTERVAL 1 DAY",
    "DECIMAL(99, 1)", "INT NOT NULL", "::", "->>", "/*", "--", ";", "o.*", "_row", "x:y", "os:system", "no_such:thing",
    "name", "orders",
)  # fmt: skip
Mutation = Callable[[str], str]


@st.composite
def mutations(draw: st.DrawFn) -> Mutation:
    """Draw one change of a text."""
    kind = draw(st.sampled_from(["delete", "double", "swap", "indent", "scalar", "key", "byte", "cut", "wrap", "join"]))
    at, other = draw(st.integers(0, 200)), draw(st.integers(0, 200))
    scalar = draw(st.sampled_from(SCALARS) | st.text(max_size=5))

    def change(text: str) -> str:
        lines = text.split("\n")
        line, to = at % len(lines), other % len(lines)
        words = list(re.finditer(r"[\w.*>-]+", text))
        if kind == "delete":
            del lines[line]
        elif kind == "double":
            lines.insert(to, lines[line])
        elif kind == "swap":
            lines[line], lines[to] = lines[to], lines[line]
        elif kind == "indent":
            lines[line] = " " * (other % 7) + lines[line].lstrip()
        elif kind == "key":
            lines.insert(line, f"{' ' * (other % 5)}{scalar}: {scalar}")
        elif kind == "wrap":
            lines[line] = lines[line].replace(": ", ": [", 1) + "]" * (other % 2)
        elif kind == "join" and line + 1 < len(lines):
            lines[line : line + 2] = [lines[line] + lines[line + 1]]
        elif kind == "scalar" and words:
            word = words[(at * 201 + other) % len(words)]
            return text[: word.start()] + scalar + text[word.end() :]
        elif kind == "byte" and text:
            place = (at * 201 + other) % len(text)
            return text[:place] + scalar[:1] + text[place + 1 :]
        elif kind == "cut":
            return text[: (at * 201 + other) % (len(text) + 1)]
        return "\n".join(lines)

    return change


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mutated")
    write_shop(folder, rows=20)
    return folder


def problems_of(text: bytes) -> list[str]:
    """Return what `validate` says of a file, one element a problem."""
    path = Path("mutated.yaml")
    path.write_bytes(text)
    try:
        validate(path)
    except InputError as error:
        return re.split(r"\n(?=mutated\.yaml)", str(error))
    return []


@pytest.mark.parametrize("examples", [300, pytest.param(200 * KILLS, marks=pytest.mark.fault)])
def test_a_mutated_pipeline_file_is_valid_or_has_located_errors(
    folder: Path, monkeypatch: pytest.MonkeyPatch, examples: int
) -> None:
    monkeypatch.chdir(folder)

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.sampled_from(FILES), st.lists(mutations(), min_size=1, max_size=3))
    def check(text: str, changes: list[Mutation]) -> None:
        for change in changes:
            text = change(text)
        for problem in problems_of(text.encode(errors="surrogatepass")):
            assert re.match(r"mutated\.yaml:\d+:\d+: .", problem)

    check()


@pytest.mark.fault
def test_a_mutated_pipeline_file_that_is_valid_ends_by_errors_of_ours_alone(spark: Any, tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop", 200)
    ended: Counter[int] = Counter()

    @settings(max_examples=50 * KILLS, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.sampled_from([file for file in FILES if file is not FLIGHTS]), mutations())
    def check(text: str, change: Mutation) -> None:
        with contextlib.chdir(shop.folder):
            if sum(ended.values()) >= KILLS or problems_of(change(text).encode(errors="surrogatepass")):
                return
        shutil.move(shop.folder / "mutated.yaml", shop.folder / "shop.yaml")
        code = shop.here()
        ended[code] += 1
        assert code in (0, 2, 3, 5), shop.said
        assert "a fault of Lakefit" not in shop.said
        assert "Traceback" not in shop.said

    check()
    print(f"\nvalid mutated pipeline files ended with exit codes {dict(ended)}")
    assert ended[0]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("rows: orders", "rows: ordrs", r":11:3: source.rows: .*'ordrs'"),
        (
            "amount < 0",
            "(" * 90 + "amount" + ")" * 90 + " < 0",
            r":\d+:6: reject.0.when: SQL that is nested too deeply",
        ),
        ("id INT,", "id " + "ARRAY<" * 300 + "INT" + ">" * 300 + ",", r":9:7: .*: SQL that is nested too deeply"),
        ("name: shop", "name: sh\x07op", r":2:9: not valid YAML: the character '\\x07' is not allowed"),
        ("name: shop", "name: sh\udcffop", r":2:9: .* can't be read as UTF-8 text: byte 0xff"),
        ("name: shop", "name: !!python/object:os.system shop", r":2:1: name: the tag .*os.system' is not allowed"),
        ("name: shop", "name: shop\nx: &a [*a]", r":3:4: not valid YAML: |:3:1: x: .*"),
    ],
)
def test_what_was_once_a_stack_trace_or_without_a_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], old: str, new: str, said: str
) -> None:
    monkeypatch.chdir(folder)
    assert old in PIPELINE
    text = PIPELINE.replace(old, new) + "score: {input: orders-0.csv, output: scored}\n"
    Path("mutated.yaml").write_text(text, encoding="utf-8", errors="surrogateescape")
    assert main(["validate", "mutated.yaml"]) == 2
    assert re.search(rf"^error: mutated\.yaml({said})", capsys.readouterr().err)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\ufeff",
        "{",
        "- a",
        "a: b: c",
        "\t",
        "name",
        "a: &a\n  <<: *a",
        "[" * 2000,
        "? {a: 1}\n: 2",
        "%TAG ! x\n--- !y",
    ],
)
def test_a_file_that_is_no_pipeline_is_refused_with_its_place_and_no_stack_trace(
    tmp_path: Path, text: str, lakefit: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (tmp_path / "mutated.yaml").write_text(text, encoding="utf-8")
    done = lakefit("prepare", "mutated.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert re.match(r"error: mutated\.yaml:\d+:\d+: ", done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    assert done.stdout == ""
