"""Which modules are mutated, what should notice, and which mutants change nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["TARGETS", "TESTS", "Target"]

TESTS = Path(__file__).parent.parent


@dataclass(frozen=True)
class Target:
    """A module.

    Attributes:
        tests: Files in TESTS, the quickest to notice first.
        alike: Mutants that no test can tell from the original, each with the reason.
    """

    tests: tuple[str, ...]
    alike: dict[str, str] = field(default_factory=dict)


_LIMIT = "a limit on time and memory: no decision rests on its last digit"
_WINDOWS = "there files are deleted otherwise"
_SLACK = "any slack far above rounding and far below 1 does"

TARGETS = {
    "mnemoscope.calibration.conformal": Target(
        ("sdk/calibration/test_conformal.py",),
        {
            "module: 1e-09 => 2e-09": "any slack far above rounding and far below delta does",
            "_log_cdf: count - 1 => count + 1": "cut to as many afterwards",
        },
    ),
    "mnemoscope.calibration.calibration": Target(
        (
            "sdk/calibration/test_calibration.py",
            "sdk/calibration/test_drift.py",
            "sdk/calibration/test_file.py",
        ),
        {
            "module: 2 => 3": _LIMIT,
            "module: 31 => 32": _LIMIT,
            "_lowest: setting.first is None or gate is None => setting.first is None and gate is"
            " None": "half a cascade is refused before",
            "Calibration.merged: True => False": "there are as many scores as prompts",
            "Calibration.merged: True => False (2)": "there are as many scores as prompts",
        },
    ),
    "mnemoscope.calibration.file": Target(
        ("sdk/calibration/test_file.py",),
        {"CalibrationFile.merged: 1 => 2": "all calibrations of a file are of one bundle"},
    ),
    "mnemoscope.calibration.written": Target(
        ("sdk/calibration/test_file.py", "attacks/test_calibration_attacks.py")
    ),
    "mnemoscope.calibration.drift": Target(("sdk/calibration/test_drift.py",)),
    "mnemoscope.audit.deciding": Target(
        ("sdk/audit/test_deciding.py",),
        {
            "module: 20000 => 20001": _LIMIT,
            "module: 1000 => 1001": _LIMIT,
            "least: 1e-12 => 2e-12": _SLACK,
            "needed: 1e-12 => 2e-12": _SLACK,
        },
    ),
    "mnemoscope.audit.confirming.choosing": Target(
        ("sdk/audit/confirming/test_choosing.py",),
        {
            "module: 200 => 201": _LIMIT,
            "module: 100 => 101": _LIMIT,
            "_some: len(places) <= count => len(places) < count": "all of them are all of them",
        },
    ),
    "mnemoscope.audit.confirming.estimates": Target(
        ("sdk/audit/confirming/test_estimates.py",),
        {
            "_ends: 1 => 2": "more than all there can be is never likely",
            "total: True => False": "each part has two ends",
        },
    ),
    "mnemoscope.audit.confirming.findings": Target(
        ("sdk/audit/confirming/test_findings.py",),
        {"judge: True => False": "there are as many of both"},
    ),
    "mnemoscope.audit.journal": Target(
        ("sdk/audit/test_journal.py",),
        {
            "Journal.open: 2 => 3": _LIMIT,
            "Journal.open: 16 => 17": _LIMIT,
            "Journal.remove: sys.platform == 'win32' => sys.platform != 'win32'": _WINDOWS,
            "Journal.remove: self.close() => pass (2)": _WINDOWS,
            "Journal._restore: break => continue": "what is torn is the last line",
        },
    ),
    "mnemoscope_runtime.reading": Target(
        ("runtime/test_reading.py",),
        {"read_file: 0 => 1 (2)": "what has pipes that wait has O_NONBLOCK"},
    ),
    "mnemoscope_runtime.strict_json": Target(("runtime/test_strict_json.py",)),
    "mnemoscope_runtime.graphs.wire": Target(
        ("runtime/graphs/test_wire.py",),
        {"Reader.fields: tag > 127 => tag >= 127": "no field has this tag, either way"},
    ),
    "mnemoscope_runtime.graphs.tensors": Target(
        ("runtime/graphs/test_walk.py",),
        {
            "_check_inside: set(inside) <= {'raw_data', typed} => "
            "set(inside) < {'raw_data', typed}": "there is one at most",
            **dict.fromkeys(
                (
                    "_check_inside: 1 => 2 (2)",
                    "_count_varints: -1 if len(found) else 0 => -1 if not len(found) else 0",
                    "_count_varints: return -1 => return None",
                    "_count_varints: 1 => 2 (2)",
                ),
                "whatever is no count will do",
            ),
        },
    ),
    "mnemoscope_runtime.graphs.walk": Target(
        ("runtime/graphs/test_walk.py",),
        {
            "_is_text: return False => return None": "both are no",
            "_Walk._opsets: 0 => 1 (2)": "neither is a version that is read",
            **dict.fromkeys(
                (
                    "module: 2 => 3 (2)",
                    "module: 2 ** 31 - 1 => 2 ** 31 + 1",
                    "module: 1 => 2",
                    "module: 31 => 32",
                    "module: 2 => 3 (4)",
                    "check_graph: len(content) > _LARGEST => len(content) >= _LARGEST",
                    "_Walk._attributes: 0 < attribute['i'] <= _LARGEST_COUNT => "
                    "0 < attribute['i'] < _LARGEST_COUNT",
                    "_Walk._graph: max(len(nodes), len(weights)) > _NODES => "
                    "max(len(nodes), len(weights)) >= _NODES",
                ),
                _LIMIT,
            ),
        },
    ),
    "mnemoscope_runtime.schedulers": Target(
        (
            "runtime/test_schedulers.py",
            "runtime/test_flow_schedulers.py",
            "runtime/test_manifest.py",
        ),
        {"module: 2 => 3": _LIMIT, "module: 16 => 17": _LIMIT},
    ),
    "mnemoscope_runtime.units": Target(("runtime/test_units.py",)),
    "mnemoscope_runtime.charsmap": Target(
        ("runtime/test_charsmap.py",),
        {
            "check_charsmap: len(table) > _MOST => len(table) >= _MOST": _LIMIT,
            "check_charsmap: 0 => 1 (2)": "sizes are of whole blocks",
            "check_charsmap: 512 => 513": "its last bit is shifted out",
        },
    ),
    "mnemoscope_runtime.unigram_json": Target(("runtime/test_t5_tokenizer.py",)),
    "mnemoscope_runtime.tokenizer": Target(
        ("runtime/test_readers.py", "runtime/test_triggers.py", "runtime/test_tokenizer.py"),
        dict.fromkeys(
            (
                "Reader.pieces: True => False",
                "Tokenizer.encode: True => False",
                "Tokenizer.encode: True => False (2)",
                "Tokenizer.checked: True => False",
                "Tokenizer.chunks: True => False",
            ),
            "there are as many of both",
        ),
    ),
    "mnemoscope.training_mode": Target(
        ("sdk/test_training_mode.py", "sdk/training/test_filtering.py")
    ),
    "mnemoscope.training.dropped": Target(
        ("sdk/training/test_dropped.py", "sdk/training/test_filtering.py"),
        {
            "module: 0.0001 => 0.0002": "where rounding ends and another precision begins",
            "is_dropped: away(embeds, empty) <= _ALIKE => away(embeds, empty) < _ALIKE": "a tie",
        },
    ),
    "mnemoscope.guard.callbacks": Target(
        ("sdk/guard/test_callbacks.py",),
        {
            "_same: return False => return None": "neither is true",
            "_same: len(now) < len(was) => len(now) <= len(was)": "the last rows of all are all",
            "_methods: 0 => 1": "neither can be called",
        },
    ),
    "mnemoscope.guard.other_model": Target(
        ("sdk/guard/test_other_model.py", "sdk/guard/test_guarding_refused.py")
    ),
    "mnemoscope.guard.units": Target(
        ("sdk/guard/test_units.py",),
        dict.fromkeys(
            ("eps_scale: scale < 0.001 => scale <= 0.001", "eps_scale: 0.001 => 0.002"),
            "where no signal is left it is 0 or nearly, and 0.006 or more in usual schedules",
        ),
    ),
    "mnemoscope.guard.decision": Target(
        (
            "sdk/guard/test_decision.py",
            "sdk/guard/test_guarding.py",
            "sdk/guard/test_guarding_refused.py",
        ),
        {
            "append: 1 => 2 (2)": "behind the last byte there is none",
            "named_prompts: True => False": "the pipeline has checked that there are as many",
            "check_same: True => False": "there are as many of both",
        },
    ),
    "mnemoscope.serve.last_first": Target(("sdk/serve/test_last_first.py",)),
    "mnemoscope.serve.pacing": Target(
        ("sdk/serve/test_pacing.py",),
        {
            "Pace.left: work <= lanes * (other - first) => work < lanes * (other - first)": (
                "where both are equal the next lanes are free at the same time"
            ),
            "Pace.left: raise AssertionError => pass": "the last lane is never full",
        },
    ),
    "mnemoscope.serve.settling": Target(("sdk/serve/test_settling.py",)),
    "mnemoscope.serve.batches": Target(
        ("sdk/serve/test_limits.py", "sdk/serve/test_batches.py"),
        {
            "module: 10 => 11": "any number of waits that is more than a few does",
            "Batches._expected: time.perf_counter() - self._ended > _LATE * self.limits.wait => "
            "time.perf_counter() - self._ended >= _LATE * self.limits.wait": "no clock tells",
        },
    ),
    "mnemoscope.guard.guarding": Target(
        tuple(
            f"sdk/guard/test_{name}.py"
            for name in (
                "guarding",
                "guarding_refused",
                "stepwise",
                "threads",
                "identity",
                "identity_adapters",
                "identity_refused",
                "tokenizing",
            )
        ),
        {
            "Guard._relative_to: torch.get_autocast_dtype(device) if torch.is_autocast_enabled"
            "(device) else None => torch.get_autocast_dtype(device) if not torch."
            "is_autocast_enabled(device) else None": "names of two baselines trade places",
            "Guard._decide: 2 => 3": "whose line a warning names",
            **dict.fromkeys(
                (
                    "Guard._decide: True => False",
                    "Guard._act: True => False",
                    "Guard._mitigated: True => False",
                ),
                "there are as many of both",
            ),
            **dict.fromkeys(
                ("Guard._watched: 0.0 => 1.0", "Guard._steering: 0.0 => 1.0"),
                "read only where something steers",
            ),
        },
    ),
}
