"""No row of a file is lost: against independent counts, tables written by hand, and pyarrow."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from cli_support import Run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prompt_support import Save, read
from pyarrow import csv as arrow

from mnemoscope import InputError
from mnemoscope.prompts import read_prompt_file

TOWER = "google icon of tokyo tower, on rings, in zagreb 2020"


def noted(path: Path, **options: bool) -> tuple[list[str], str]:
    told: list[str] = []
    prompts = list(read_prompt_file(path, tell=told.append, **options))
    [note] = told
    return prompts, note.partition(": ")[2]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_every_line_is_a_prompt(save: Save, end: str, last: bool, codec: str) -> None:
    """What Excel on macOS, Windows and others write; counted by Python's own text reader."""
    prompts = [f"a cat, number {i} — 猫" for i in range(1000)]
    text = end.join(prompts) + end * last
    path = save("p.txt", text.encode(codec))
    found, note = noted(path)
    with path.open(encoding=codec) as file:
        assert found == [line.rstrip("\n") for line in file] == prompts
    assert note == "1,000 prompts."
    table = save("p.csv", f"id;prompt{end}1;{f'{end}2;'.join(prompts)}{end * last}".encode(codec))
    assert read(table) == prompts


@pytest.mark.parametrize("size", [2**16 - 1, 2**16, 2**16 + 1, 2**17])
def test_an_end_of_line_may_lie_between_two_reads(save: Save, size: int) -> None:
    for end in ("\n", "\r\n", "\r"):
        for shift in range(3):
            first = "x" * (size - shift)
            assert read(save("p.txt", f"{first}{end}b{end}{end}c")) == [first, "b", "c"]


def test_a_carriage_return_hides_no_prompt(run: Run, save: Save) -> None:
    """The whole way: the file that was one prompt and clean."""
    for name, content in (
        ("p.txt", f"a cat\r{TOWER}\ra dog\r"),
        ("p.csv", f'id,prompt\r1,a cat\r2,"{TOWER}"\r3,a dog'),
    ):
        result = run("screen", "--file", save(name, content), "--threads", 1)
        assert result.code == 1, result
        assert [line.split()[2] for line in result.out.splitlines()[1:]] == [
            *("clean", "memorized", "clean")
        ]
        assert f"{name}: 3 prompts." in result.err


def test_what_is_left_out_and_what_is_odd_is_said(save: Save) -> None:
    content = "a\n\n   \nb\u2028c\nd\x85e\nf\x0bg\n"
    assert noted(save("p.txt", content)) == (
        ["a", "b\u2028c", "d\x85e", "f\x0bg"],
        "4 prompts; 3 of them with U+2028, U+0085 or the like inside, which ends no line here; "
        "2 blank lines left out.",
    )
    assert noted(save("p.csv", 'prompt,id\n"a\nb",1\n\n"  ",2\n,3\n')) == (
        ["a\nb", "  ", ""],
        "3 prompts; 2 of them empty or white space; 1 of them over several lines, in quotes "
        "(--no-quotes reads quotes as they stand); 1 blank line left out.",
    )


# tables written by hand: what a file holds, and what RFC 4180 says that is

TABLES: dict[str, tuple[str, list[str]]] = {
    "plain": ("prompt,id\na,1\nb,2\n", ["a", "b"]),
    "no end": ("prompt,id\na,1\nb,2", ["a", "b"]),
    "doubled quotes": ('prompt,id\n"a ""b"" c",1\n"""",2\n', ['a "b" c', '"']),
    "empty and quoted": ('prompt,id\n"",1\n,2\n" ",3\n', ["", "", " "]),
    "delimiters inside": ('prompt,id\n"a,b;c\td",1\n', ["a,b;c\td"]),
    "ends of lines inside": ('prompt,id\n"a\r\nb\n\rc",1\n', ["a\r\nb\n\rc"]),
    "quotes inside of what is not quoted": (
        'prompt,id\n6" nails,1\na "b" c,2\n',
        ['6" nails', 'a "b" c'],
    ),
    "a header over two lines": ('"the\nid",prompt\n1,a\n', ["a"]),
    "spaces stay": ("prompt,id\n a , 1\n", [" a "]),
    "quotes after a space are text": ('id,prompt\n1, "a"\n', [' "a"']),
    "blank lines before the header": ("\n\nprompt,id\na,1\n", ["a"]),
    "one column": ("prompt\na\nb c\n", ["a", "b c"]),
    "semicolons, and commas in the header": ('"a, b, c";prompt\n1;x\n', ["x"]),
    "null by name": ("prompt,id\nnull,1\nNA,2\nNone,3\n", ["null", "NA", "None"]),
    "numbers": ("prompt,id\n007,1\n1e5,2\ntrue,3\n", ["007", "1e5", "true"]),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_by_hand(save: Save, name: str) -> None:
    content, expected = TABLES[name]
    assert read(save("p.csv", content)) == expected


def by_arrow(path: Path, delimiter: str, *, quotes: bool = True) -> list[str]:
    """The column `prompt` by a reader that shares no code with ours."""
    options = arrow.ParseOptions(
        delimiter=delimiter, quote_char='"' if quotes else False, newlines_in_values=quotes
    )
    with path.open() as file:
        names = next(csv.reader(file, delimiter=delimiter))
    kinds = arrow.ConvertOptions(column_types=dict.fromkeys(names, "string"))
    table = arrow.read_csv(path, parse_options=options, convert_options=kinds)
    found: list[str] = table.column("prompt").to_pylist()
    return found


field = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(field, field), min_size=1, max_size=8),
    st.sampled_from(",;\t"),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
)
def test_pyarrow_reads_the_same(
    save: Save, rows: list[tuple[str, str]], delimiter: str, end: str, quoting: int
) -> None:
    out = io.StringIO()
    if any("\r" in each for row in rows for each in row):
        quoting = csv.QUOTE_ALL  # the writer forgets it for a lone CR
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerow(["id", "prompt"])
    writer.writerows(rows)
    path = save("p.csv", out.getvalue())
    assert read(path) == by_arrow(path, delimiter) == [prompt for _, prompt in rows]


word = st.text(st.sampled_from("ab\"' ,;"), min_size=1, max_size=8).filter(str.strip)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(word, min_size=1, max_size=8))
def test_without_quotes_every_line_is_a_row(save: Save, prompts: list[str]) -> None:
    content = "id\tprompt\n" + "".join(f"1\t{prompt}\n" for prompt in prompts)
    path = save("p.tsv", content)
    assert list(read_prompt_file(path, quotes=False)) == prompts
    assert by_arrow(path, "\t", quotes=False) == prompts


def test_a_quote_that_opens_a_field_swallows_no_rows(save: Save) -> None:
    """As files without quoting hold them: an error, and a way to read them."""
    path = save("p.tsv", 'prompt\tid\n"big" cat\t1\nsmall dog\t2\n"6 inch nails\t3\n')
    with pytest.raises(InputError, match="line 2: quotes do not match"):
        read(path)
    assert list(read_prompt_file(path, quotes=False)) == ['"big" cat', "small dog", '"6 inch nails']


def test_columns_of_one_name(save: Save) -> None:
    with pytest.raises(InputError, match=r"line 1: columns 1 and 3 are both named 'prompt'"):
        read(save("p.csv", "prompt,id,prompt\na,1,b\n"))
    with pytest.raises(InputError, match="columns 1 and 2 are both named 'Prompt'"):
        read(save("p.csv", "Prompt,PROMPT\na,b\n"))
    assert read(save("p.csv", "id,id,prompt\n1,2,a\n")) == ["a"]  # nobody asks for those


def test_no_quotes_is_about_tables(run: Run, save: Save) -> None:
    path = save("p.jsonl", '"a"')
    with pytest.raises(InputError, match=r"is for \.csv and \.tsv files"):
        list(read_prompt_file(path, quotes=False))
    tsv = save("p.tsv", 'prompt\tid\n"a cat\t1\n')
    assert run("screen", "--file", tsv, "--threads", 1).code == 2
    result = run("screen", "--file", tsv, "--no-quotes", "--threads", 1)
    assert (result.code, result.out.count('"a cat')) == (0, 1)
