"""A page to try it: `mnemoscope ui`.

Nothing here measures anything: tabs ask `desk` and `studio`, which ask the detector, the explainer,
the mitigator and the audit, and `showing` makes HTML of what they say. Only `page`, the tabs and
`running` need Gradio.
"""

from .options import UiOptions

__all__ = ["UiOptions"]
