"""The report as a page in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["page"]

_GOAL_PART, _GOAL_MS, _GOAL_RATE = "PyTorch, CUDA graphs", 5.0, 300.0


def page(report: Mapping[str, Any]) -> str:
    """Tables of a report, and whether the goals of screening at full size are reached."""
    setting, parts = report["setting"], report["parts"]
    machine = ", ".join(f"{name} {report[name]}" for name in ("gpu", "driver", "cuda"))
    lines = [
        f"# {report['name']}",
        "",
        f"{machine}; {setting['family']} in {setting['precision']}; {report['when']}.",
        "",
        "| part | p50 ms a prompt | times faster than the paper's step | prompts/s "
        "| error on the probe | took, s | when |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [_row(name, each) for name, each in parts.items()]
    lines += ["", *_others(parts), *_goals(parts)]
    if setting["device"] == "cpu":
        lines += ["", "A rehearsal: the processor stood in for the GPU. These figures say nothing."]
    return "\n".join(lines) + "\n"


def _row(name: str, part: Mapping[str, Any]) -> str:
    rows = part.get("rows", {})
    faster = list(rows.values())[-1]["ratio_p50"] if rows else None
    cells = (
        _number(part.get("ms_a_prompt"), "{:.2f}"),
        _number(faster, "{:.2f}"),
        _number(part.get("prompts_per_second"), "{:.0f}"),
        _number(part.get("probe_error"), "{:.1e}"),
        _number(part.get("took_seconds"), "{:.0f}"),
        part.get("when", ""),
    )
    told = name
    if part["status"] != "done":
        told += f": {part['status']}, {part['reason'].split('. ')[0]}"  # what to do is in the JSON
    return f"| {_cell(told)} | {' | '.join(cells)} |"


def _others(parts: Mapping[str, Any]) -> list[str]:
    found = []
    if "ratio" in (guard := parts.get("guard", {})):
        found.append(
            f"- Guard: {guard['own_seconds'] * 1e3:.2f} ms of its own until it has decided, "
            f"{guard['share_of_a_step']:.1%} of a step; a guarded draw takes {guard['ratio']:.3f} "
            "times as long as a bare one."
        )
    if "ratio" in (training := parts.get("training filter", {})):
        found.append(
            f"- Training filter: a step of {training['samples']} samples takes "
            f"{training['ratio']:.2f} times as long with it."
        )
    if "guard_error" in (flow := parts.get("the shipped flow", {})):
        errors = [
            f"{name}: {', '.join(f'{what[:-6]} {value:.1e}' for what, value in each.items())}"
            for name, each in flow.items()
            if isinstance(each, Mapping)
        ]
        found.append(
            f"- The shipped flow, largest relative error against a CPU: {'; '.join(errors)}. "
            f"What a guard reads there is {flow['guard_error']:.1e} from what is screened there."
        )
    return found


def _goals(parts: Mapping[str, Any]) -> list[str]:
    part = parts.get(_GOAL_PART, {})
    if "prompts_per_second" not in part:
        return ["- Goals: not measured."]
    ms, rate = part["ms_a_prompt"], part["prompts_per_second"]
    return [
        f"- Goal of at most {_GOAL_MS:.0f} ms a prompt: {_met(ms <= _GOAL_MS)} ({ms:.2f} ms); "
        f"of {_GOAL_RATE:.0f} prompts/s, {part['offline']['prompts']} at once: "
        f"{_met(rate >= _GOAL_RATE)} ({rate:.0f})."
    ]


def _met(reached: bool) -> str:
    return "reached" if reached else "missed"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
