from __future__ import annotations

import re

import pytest

import mnemoscope_runtime
from mnemoscope_runtime import errors

TREE = {
    "MnemoscopeError": ("Exception", 3),
    "InputError": ("MnemoscopeError", 2),
    "BackendError": ("MnemoscopeError", 3),
    "BackendUnavailable": ("BackendError", 3),
    "NumericsError": ("BackendError", 3),
    "BundleError": ("MnemoscopeError", 4),
    "SchemaError": ("BundleError", 4),
    "IntegrityError": ("BundleError", 4),
    "CalibrationError": ("MnemoscopeError", 4),
    "SignatureError": ("MnemoscopeError", 4),
    "ExportError": ("MnemoscopeError", 2),
    "ParityError": ("ExportError", 3),
    "Unserved": ("MnemoscopeError", 3),
    "Overloaded": ("Unserved", 3),
    "ServiceClosed": ("Unserved", 3),
    "UnknownModel": ("Unserved", 3),
    "ModelNotReady": ("Unserved", 3),
    "LoadFailed": ("Unserved", 3),
    "NotAllowed": ("Unserved", 3),
}


@pytest.mark.parametrize("name", TREE)
def test_place_in_the_tree(name: str) -> None:
    error, (parent, exit_code) = getattr(errors, name), TREE[name]
    assert error.__base__.__name__ == parent
    assert error.exit_code == exit_code
    assert getattr(mnemoscope_runtime, name) is error


def test_tree_is_complete() -> None:
    defined = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert defined == set(errors.__all__) == set(TREE)


def test_docstring_draws_the_same_tree() -> None:
    drawn, code = {}, 3
    for line in (errors.__doc__ or "").splitlines():
        if (found := re.search(r"[├└]── (\w+)|^ {4}(MnemoscopeError)$", line)) is None:
            continue
        given = re.search(r"exit code (\d)", line)
        code = int(given[1]) if given else code
        drawn[found[1] or found[2]] = code
    assert drawn == {name: exit_code for name, (_, exit_code) in TREE.items()}


def test_errors_are_also_what_python_calls_them() -> None:
    assert issubclass(errors.InputError, ValueError)
    assert issubclass(errors.BackendError, RuntimeError)
