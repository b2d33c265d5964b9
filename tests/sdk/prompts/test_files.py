from __future__ import annotations

import csv
import io
import json
import sys
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prompt_support import PROMPTS, Save, read, stdin
from pyarrow import parquet

from mnemoscope import InputError
from mnemoscope.prompts import read_labelled_file, read_prompt_file

text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)


def as_csv(rows: list[list[str]], delimiter: str = ",") -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows(rows)
    return out.getvalue()


# every format


def test_text(save: Save) -> None:
    assert read(save("p.txt", "\n".join(PROMPTS))) == PROMPTS
    assert read(str(save("p.txt", "\n".join(PROMPTS) + "\n"))) == PROMPTS


def test_json_lines(save: Save) -> None:
    rows = [{"prompt": prompt, "id": i} for i, prompt in enumerate(PROMPTS)]
    assert read(save("p.jsonl", "\n".join(map(json.dumps, rows)))) == PROMPTS
    assert read(save("p.jsonl", "\n".join(map(json.dumps, PROMPTS)))) == PROMPTS


@pytest.mark.parametrize(("ending", "delimiter"), [("csv", ","), ("csv", ";"), ("csv", "\t")])
def test_csv_with_each_delimiter(save: Save, ending: str, delimiter: str) -> None:
    content = as_csv([["id", "prompt"], *([str(i), p] for i, p in enumerate(PROMPTS))], delimiter)
    assert read(save(f"p.{ending}", content)) == PROMPTS


def test_tsv(save: Save) -> None:
    content = as_csv([["id", "prompt"], *([str(i), p] for i, p in enumerate(PROMPTS))], "\t")
    assert read(save("p.tsv", content)) == PROMPTS


def test_tsv_knows_only_tabs(save: Save) -> None:
    """One column: neither a comma nor a semicolon may cut a prompt."""
    assert read(save("p.tsv", "prompt\na cat, sitting\na; b\n")) == ["a cat, sitting", "a; b"]
    content = "prompt\tnotes, comments, remarks\na cat\tb, c\n"
    assert read(save("p.tsv", content)) == ["a cat"]


def test_parquet(tmp_path: Path) -> None:
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        table = pa.table({"id": list(range(5)), "prompt": pa.array(PROMPTS).cast(kind)})
        parquet.write_table(table, tmp_path / "p.parquet")
        assert read(tmp_path / "p.parquet") == PROMPTS


def test_standard_input_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, "a cat\n\n{not json}\r\n猫".encode())
    assert read("-") == ["a cat", "{not json}", "猫"]


def test_endings_in_capitals(save: Save) -> None:
    assert read(save("P.TXT", "a cat")) == ["a cat"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(text, max_size=8), st.sampled_from(",;\t"))
def test_whatever_csv_writes_is_read_back(save: Save, prompts: list[str], delimiter: str) -> None:
    out = io.StringIO()
    rows = csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    rows.writerow(["id", "prompt"])
    rows.writerows([str(i), prompt] for i, prompt in enumerate(prompts))
    assert read(save("p.csv", out.getvalue())) == prompts


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(text, max_size=8), st.booleans())
def test_whatever_json_writes_is_read_back(save: Save, prompts: list[str], escape: bool) -> None:
    lines = (json.dumps({"caption": p}, ensure_ascii=escape) for p in prompts)
    assert read(save("p.jsonl", "\n".join(lines))) == prompts


# columns


@pytest.mark.parametrize(
    ("header", "column", "expected"),
    [
        ("text,caption,prompt", None, "3"),
        ("text,caption,other", None, "2"),
        ("other,text,another", None, "2"),
        ("text,PROMPT,other", None, "2"),
        ("text, Caption ,other", None, "2"),
        ("text,caption,prompt", "text", "1"),
        ("text,Title,prompt", "title", "2"),
        ("title,text,prompt", "TITLE", "1"),
        ("Prompt,prompt,text", None, "2"),
    ],
)
def test_the_column_that_is_chosen(
    save: Save, tmp_path: Path, header: str, column: str | None, expected: str
) -> None:
    names = header.split(",")
    row = dict(zip(names, "123", strict=True))
    assert read(save("p.csv", f"{header}\n1,2,3\n"), column) == [expected]
    assert read(save("p.tsv", header.replace(",", "\t") + "\n1\t2\t3\n"), column) == [expected]
    assert read(save("p.jsonl", json.dumps(row)), column) == [expected]
    parquet.write_table(pa.table({k: [v] for k, v in row.items()}), tmp_path / "p.parquet")
    assert read(tmp_path / "p.parquet", column) == [expected]


@pytest.mark.parametrize("column", [None, "title"])
def test_a_missing_column(save: Save, tmp_path: Path, column: str | None) -> None:
    parquet.write_table(pa.table({"id": ["1"], "url": ["2"]}), tmp_path / "p.parquet")
    for path in (
        save("p.csv", "id,url\n1,2\n"),
        save("p.tsv", "id\turl\n1\t2\n"),
        save("p.jsonl", '{"id": "1", "url": "2"}'),
        tmp_path / "p.parquet",
    ):
        with pytest.raises(InputError, match=r"only id, url\. Name the column") as caught:
            read(path, column)
        assert (column or "prompt or caption or text") in str(caught.value)


def test_an_object_without_the_key_is_found_by_its_line(save: Save) -> None:
    path = save("p.jsonl", '{"prompt": "a"}\n\n{"id": 1}\n')
    rows = read_prompt_file(path)
    assert next(rows) == "a"
    with pytest.raises(InputError, match="line 3: no column prompt or caption"):
        next(rows)


def test_thousands_of_columns_do_not_flood_the_message(save: Save) -> None:
    with pytest.raises(InputError) as caught:
        read(save("p.csv", ",".join(f"c{i}" for i in range(10_000))))
    assert len(str(caught.value)) < 600


def test_an_empty_file(save: Save) -> None:
    assert read(save("p.txt", "")) == []
    assert read(save("p.jsonl", "")) == []
    assert read(save("p.csv", "prompt\n")) == []
    for content in ("", "\n\n"):
        with pytest.raises(InputError, match="has no header"):
            read(save("p.csv", content))


# lines


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_and_blank_lines(save: Save, end: str) -> None:
    assert read(save("p.txt", end.join(["", "a", "", "   ", "b", "", ""]))) == ["a", "b"]
    assert read(save("p.jsonl", end.join(["", '"a"', "  ", '"b"', ""]))) == ["a", "b"]
    assert read(save("p.csv", end.join(["prompt,id", "a,1", "", "b,2", ""]))) == ["a", "b"]
    assert read(save("p.tsv", end.join(["prompt\tid", "a\t1", "", "b\t2", ""]))) == ["a", "b"]


def test_a_byte_order_mark_is_no_part_of_the_first_prompt(
    save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    bom = "\ufeff"
    assert read(save("p.txt", f"{bom}a\nb")) == ["a", "b"]
    assert read(save("p.jsonl", f'{bom}{{"prompt": "a"}}')) == ["a"]
    assert read(save("p.csv", f"{bom}prompt,id\na,1")) == ["a"]
    assert read(save("p.csv", f'{bom}"prompt",id\na,1')) == ["a"]
    stdin(monkeypatch, f"{bom}a".encode())
    assert read("-") == ["a"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_quoted_line_ends_in_csv(save: Save, end: str) -> None:
    content = end.join(["id,prompt", '1,"first', "", 'third, ""quoted"""', "2,b", ""])
    assert read(save("p.csv", content)) == [f'first{end}{end}third, "quoted"', "b"]


def test_separators_of_unicode_do_not_end_a_line(save: Save) -> None:
    prompt = "a\u2028b\u0085c\x0bd\x0ce"
    assert read(save("p.txt", f"{prompt}\nnext")) == [prompt, "next"]
    assert read(save("p.csv", f"prompt,id\n{prompt},1\n")) == [prompt]


# constant memory

LINES = 20_000
LONG = "a photograph of a cat on a mat, number {}, " + "very detailed, " * 20


@pytest.mark.parametrize("name", ["p.txt", "p.jsonl", "p.csv", "p.tsv", "-"])
def test_many_lines_are_streamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / name
    with path.open("w") as file:
        if name in ("p.csv", "p.tsv"):
            file.write("prompt\n")
        for i in range(LINES):
            line = json.dumps(LONG.format(i))
            file.write((line.strip('"') if name in ("p.txt", "-") else line) + "\n")
    assert path.stat().st_size > 6e6
    with path.open("rb") as raw:
        if name == "-":
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(raw))
        tracemalloc.start()
        try:
            count = sum(1 for _ in read_prompt_file("-" if name == "-" else path))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert count == LINES
    assert peak < 1e6


def test_many_rows_of_parquet_are_streamed(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    table = pa.table({"prompt": [LONG.format(i) for i in range(LINES)]})
    size = table.nbytes
    parquet.write_table(table, path, row_group_size=400)
    del table
    before = pa.total_allocated_bytes()
    peak = 0
    for i, _ in enumerate(read_prompt_file(path)):
        if i % 500 == 0:
            peak = max(peak, pa.total_allocated_bytes() - before)
    assert i == LINES - 1
    assert peak < size / 5


def test_nothing_is_opened_before_the_first_prompt_is_asked_for(tmp_path: Path) -> None:
    rows = read_prompt_file(tmp_path / "later.txt")
    (tmp_path / "later.txt").write_text("a")
    assert list(rows) == ["a"]


# labels


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_labels(save: Save, tmp_path: Path, ending: str) -> None:
    rows = [(prompt, f"kind {i % 2}, {i}") for i, prompt in enumerate(PROMPTS)]
    if ending == "parquet":
        path = tmp_path / "p.parquet"
        columns = zip(*rows, strict=True)
        parquet.write_table(pa.table(dict(zip(("caption", "Type"), columns, strict=True))), path)
    elif ending == "jsonl":
        lines = [json.dumps({"Type": kind, "caption": prompt}) for prompt, kind in rows]
        path = save("p.jsonl", "\n".join(lines))
    else:
        table = [["caption", "n", "Type"], *([prompt, "1", kind] for prompt, kind in rows)]
        path = save(f"p.{ending}", as_csv(table, "\t" if ending == "tsv" else ","))
    assert list(read_labelled_file(path, label="type")) == rows


def test_the_prompt_can_be_the_label(save: Save) -> None:
    path = save("p.csv", "caption\na cat\n")
    assert list(read_labelled_file(path, label="caption")) == [("a cat", "a cat")]
