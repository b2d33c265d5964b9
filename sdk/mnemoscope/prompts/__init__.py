"""Reading prompts from files, row by row, without losing one.

    read_prompt_file("prompts.csv")        every prompt; a row that cannot be read is an error
    read_labelled_file("prompts.csv", ...) with what another column says of each
    read_rows("prompts.csv")               every row; one that cannot be read says why
    read_records("prompts.csv", ...)       the same of several columns

One file for each format. What is no row of its format (an unclosed quote, a column that is not
there) ends the reading in any case, with the lines that it is about.
"""

from .files import (
    prompt_column,
    read_labelled_file,
    read_prompt_file,
    read_records,
    read_rows,
)
from .records import COLUMNS, Broken, Wanted

__all__ = [
    "COLUMNS",
    "Broken",
    "Wanted",
    "prompt_column",
    "read_labelled_file",
    "read_prompt_file",
    "read_records",
    "read_rows",
]
