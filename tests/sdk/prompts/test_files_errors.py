from __future__ import annotations

import csv
import gzip
import json
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest
from prompt_support import PROMPTS, Save, read, stdin
from pyarrow import parquet

from mnemoscope import BackendUnavailable, InputError
from mnemoscope.prompts import read_labelled_file, read_prompt_file


@pytest.mark.parametrize("name", ["p.txt", "p.jsonl", "p.csv", "p.tsv"])
def test_not_utf8_names_the_line(save: Save, name: str) -> None:
    path = save(name, b'"prompt"\n"a"\n"caf\xe9"\n')
    with pytest.raises(InputError, match=r"line 3: not UTF-8 \(byte [34]\)\. Convert it.*iconv"):
        read(path)


def test_what_comes_before_the_bad_line_is_read(save: Save) -> None:
    rows = read_prompt_file(save("p.txt", b"a\nb\n\xff\n"))
    assert [next(rows), next(rows)] == ["a", "b"]
    with pytest.raises(InputError, match="line 3"):
        next(rows)


def test_not_utf8_on_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, b"a\n\xff\n")
    with pytest.raises(InputError, match="standard input, line 2: not UTF-8"):
        read("-")


@pytest.mark.parametrize("name", ["p.txt", "p.jsonl", "p.csv", "p.tsv"])
def test_nul_bytes(save: Save, name: str) -> None:
    with pytest.raises(InputError, match=r"line 2: contains a NUL byte.*UTF-16"):
        read(save(name, b'"prompt"\n"a\0b"\n'))


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_wide_encodings_without_a_mark(save: Save, codec: str) -> None:
    with pytest.raises(InputError, match=r"line 1.*UTF-8"):
        read(save("p.txt", "a cat\na dog\n".encode(codec)))


@pytest.mark.parametrize(
    "line", ["{", "nonsense", '{"prompt": }', '"a" "b"', "[" * 100_000, '{"prompt": "a", "n": NaN}']
)
def test_not_json(save: Save, line: str) -> None:
    with pytest.raises(InputError, match="line 2: not JSON") as caught:
        read(save("p.jsonl", f'"a"\n{line}\n'))
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("line", ["1", "null", "true", '["a"]'])
def test_json_that_is_neither_text_nor_object(save: Save, line: str) -> None:
    with pytest.raises(InputError, match="line 2: neither text nor an object"):
        read(save("p.jsonl", f'"a"\n{line}\n'))


@pytest.mark.parametrize("value", [1, None, True, ["a"], {"text": "a"}, list(range(10_000))])
def test_a_value_that_is_not_text(save: Save, tmp_path: Path, value: object) -> None:
    rows = [{"prompt": "a"}, {"prompt": value}]
    with pytest.raises(InputError, match=r"line 2: the prompt is .*, not text") as caught:
        read(save("p.jsonl", "\n".join(map(json.dumps, rows))))
    assert len(str(caught.value)) < 600
    parquet.write_table(pa.table({"prompt": [value]}), tmp_path / "p.parquet")
    wanted = "row 1: the prompt is null, not text" if value is None else r"'prompt' is .*, not text"
    with pytest.raises(InputError, match=wanted):
        read(tmp_path / "p.parquet")


@pytest.mark.parametrize(
    "column",
    [
        pa.array([b"a cat"]),
        pa.array([b"a cat"], pa.large_binary()),
        pa.array([1], pa.date32()),
        pa.array([2**60], pa.duration("s")),  # no Python value holds it
        pa.array([1], pa.timestamp("ns")),
        pa.array([b"a"], pa.binary()).dictionary_encode(),
    ],
    ids=lambda each: str(each.type),
)
def test_a_parquet_column_that_holds_no_text(tmp_path: Path, column: pa.Array) -> None:
    parquet.write_table(pa.table({"prompt": column}), tmp_path / "p.parquet")
    with pytest.raises(
        InputError, match=r"the column 'prompt' is .*, not text\. Name the one with"
    ):
        read(tmp_path / "p.parquet")


def test_invalid_utf8_in_a_parquet_string(tmp_path: Path) -> None:
    good, bad = b"a cat", b"caf\xe9"
    data = pa.py_buffer(good + bad)
    offsets = pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, 5, 9)))
    column = pa.StringArray.from_buffers(2, offsets, data)
    parquet.write_table(pa.table({"prompt": column}), tmp_path / "p.parquet")
    rows = read_prompt_file(tmp_path / "p.parquet")
    assert next(rows) == "a cat"
    with pytest.raises(InputError, match=r"row 2: not UTF-8 \(byte 3\)"):
        next(rows)


@pytest.mark.parametrize("value", ['"\\ud83d"', '{"prompt": "a \\udc00 b"}', '"\\udc80"'])
def test_half_of_a_surrogate_pair_is_called_that(save: Save, value: str) -> None:
    with pytest.raises(InputError, match=r"line 2: holds .ud.{3}, half of a surrogate pair"):
        read(save("p.jsonl", f'"\\ud83d\\ude00"\n{value}\n'))


def test_a_key_that_an_object_has_twice(save: Save) -> None:
    with pytest.raises(InputError, match="columns 1 and 3 are both named 'prompt'"):
        read(save("p.jsonl", '{"prompt": "a", "id": 1, "prompt": "b"}'))


# rows with more or fewer fields


@pytest.mark.parametrize("row", ["2", "a cat on a mat", "x,y,z"])
def test_a_row_of_another_length(save: Save, row: str) -> None:
    with pytest.raises(
        InputError, match=r"line 3: (more|fewer) fields than the header has"
    ) as caught:
        read(save("p.csv", f"prompt,id\n1,a\n{row}\n"))
    assert "2 in line 1" in str(caught.value)
    assert "--no-quotes" in str(caught.value)


@pytest.mark.parametrize("header", ["prompt", "id,prompt"])
def test_a_prompt_is_never_cut_at_a_delimiter(save: Save, header: str) -> None:
    rows = f"{header}\n" + "a,b" * (header != "prompt") + "\n"
    path = save("p.csv", f"{rows}a cat, sitting, on a mat\n")
    with pytest.raises(
        InputError, match=r"line 3: more fields than the header has.*in double quotes"
    ):
        read(path)


def test_empty_fields_at_the_end_cut_nothing(save: Save) -> None:
    assert read(save("p.csv", "id,prompt\n1,a,,\n2,b\n")) == ["a", "b"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ('"a" cat', "line 3: quotes do not match in line 3, of the row from line 3 on"),
        ('"a cat', "lines 3 to 4: a quote that opens in line 3 is not closed by line 4, the last"),
        (
            '"a\nb\nc',
            "lines 3 to 6: a quote that opens in line 3 is not closed by line 6, the last",
        ),
        ('"a\nb" c', "lines 3 to 4: quotes do not match in line 4, of the row from line 3 on"),
    ],
)
def test_quotes_that_do_not_match(save: Save, row: str, words: str) -> None:
    with pytest.raises(InputError, match=rf"p\.csv, {words}.*--no-quotes"):
        read(save("p.csv", f"prompt,id\nfirst,1\n{row}\nlast,2\n"))


def test_a_field_may_be_as_long_as_a_line(save: Save) -> None:
    before = csv.field_size_limit()
    long = "x" * 200_000
    assert read(save("p.csv", f"prompt\n{long}\na\n")) == [long, "a"]
    assert csv.field_size_limit() == before  # the process's own


def test_a_line_without_an_end(save: Save) -> None:
    with pytest.raises(InputError, match="line 2: longer than 16,777,216 bytes"):
        read(save("p.txt", b"a\n" + b"x" * 2**24))


@pytest.mark.parametrize("name", ["p.json", "p", "p.xlsx", "p.txt.gz"])
def test_an_unknown_ending(save: Save, name: str) -> None:
    with pytest.raises(InputError, match=r"ending that is not known.*\.txt, \.jsonl, \.csv"):
        read(save(name, "a"))


def test_a_missing_file_of_any_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no file .*pictures"):
        read(tmp_path / "pictures")


@pytest.mark.parametrize("name", ["p.txt", "p.jsonl", "p.csv", "p.tsv", "p.parquet"])
def test_a_missing_file_and_a_directory(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read(tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read(tmp_path / name)


@pytest.mark.parametrize("damage", ["garbage", "empty", "cut", "flipped"])
def test_a_broken_parquet_file(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "p.parquet"
    parquet.write_table(pa.table({"prompt": PROMPTS * 100}), path)
    whole = path.read_bytes()
    path.write_bytes(
        {
            "garbage": b"prompt\na cat\n",
            "empty": b"",
            "cut": whole[: len(whole) // 2],
            "flipped": whole[:4] + bytes(255 - byte for byte in whole[4:60]) + whole[60:],
        }[damage]
    )
    with pytest.raises(InputError, match=r"p\.parquet"):
        read(path)


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet.write_table(pa.table({"prompt": PROMPTS}), tmp_path / "p.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BackendUnavailable, match=r"pip install -c constraints.txt '\.\[parquet\]'"):
        read(tmp_path / "p.parquet")


# labels


def test_a_label_column_that_is_not_there(save: Save) -> None:
    path = save("p.csv", "caption,kind\na cat,x\n")
    with pytest.raises(InputError, match=r"no column type, only caption, kind\. .*--label"):
        list(read_labelled_file(path, label="type"))


@pytest.mark.parametrize(("name", "content"), [("p.txt", "a cat"), ("p.jsonl", '"a cat"')])
def test_text_has_no_labels(save: Save, name: str, content: str) -> None:
    with pytest.raises(InputError, match="Text without columns, so there is no label 'k'"):
        list(read_labelled_file(save(name, content), label="k"))


@pytest.mark.parametrize("value", ["null", "3", "[1]"])
def test_a_label_that_is_not_text(save: Save, value: str) -> None:
    path = save("p.jsonl", f'{{"prompt": "a cat", "k": {value}}}')
    with pytest.raises(InputError, match=r"line 1: the label is .*, not text"):
        list(read_labelled_file(path, label="k"))


def test_a_column_of_what_has_none(tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    file.write_text("a cat\n")
    with pytest.raises(InputError, match="has no columns, so there is no 'foo'"):
        list(read_prompt_file(file, column="foo"))
    file = tmp_path / "p.jsonl"
    file.write_text('{"foo": "a cat"}\n"a dog"\n')
    with pytest.raises(InputError, match="line 2: text, which has no columns"):
        list(read_prompt_file(file, column="foo"))


@pytest.mark.parametrize("name", ["p.txt", "p.jsonl", "p.csv"])
def test_a_long_prompt_is_named_by_its_line(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    long = "x" * 100_001
    text = {"p.jsonl": f'"a"\n"{long}"\n', "p.csv": f"prompt\n{long}\n"}
    file.write_text(text.get(name, f"a\n{long}\n"))
    with pytest.raises(InputError, match=rf"{name}, line 2: 100,001 characters"):
        list(read_prompt_file(file, longest=100_000))
    assert max(map(len, read_prompt_file(file))) == 100_001


@pytest.mark.parametrize("name", ["p.txt", "p.jsonl", "p.csv"])
def test_packed_files_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b"a cat\n"))
    with pytest.raises(InputError, match="compressed by gzip"):
        list(read_prompt_file(tmp_path / name))


def test_separators_inside_of_json_are_told(tmp_path: Path) -> None:
    told: list[str] = []
    (tmp_path / "p.jsonl").write_text('"a\u2028b"\n', encoding="utf-8")
    assert list(read_prompt_file(tmp_path / "p.jsonl", tell=told.append)) == ["a\u2028b"]
    assert "1 of them with U+2028" in told[0]


@pytest.mark.parametrize("text", ['[\n"a cat"\n]\n', '["a cat"]\n'])
def test_arrays_are_no_json_lines(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.jsonl").write_text(text)
    with pytest.raises(InputError, match=r"line 1: .*an array, and .*jq"):
        list(read_prompt_file(tmp_path / "p.jsonl"))


def test_long_numbers_beside_a_prompt(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(f'{{"prompt": "a cat", "n": {"9" * 6000}}}\n')
    assert list(read_prompt_file(path)) == ["a cat"]
    path.write_text("9" * 6000)
    with pytest.raises(InputError, match="neither text nor an object"):
        list(read_prompt_file(path))


def test_columns_are_listed_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("Zebra,Ape\n1,2\n")
    with pytest.raises(InputError, match=r"only Zebra, Ape"):
        list(read_prompt_file(tmp_path / "p.csv"))


@pytest.mark.parametrize("name", ["pipe", "pipe.parquet"])
def test_pipes(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)

    def write() -> None:
        with suppress(BrokenPipeError):
            (tmp_path / name).write_text("a cat\n")

    writer = threading.Thread(target=write)
    writer.start()
    if name == "pipe":
        assert list(read_prompt_file(tmp_path / name)) == ["a cat"]
    else:
        with pytest.raises(InputError, match="is a pipe, and Parquet is read from its end"):
            list(read_prompt_file(tmp_path / name))
    writer.join()
