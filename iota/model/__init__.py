"""The model: shapes, cuts and counts (no torch), a stage of it as a module, codecs, export.

Import the submodules; this file stays light because the planner must run without torch.
"""

from iota.model.presets import load_model

__all__ = ["load_model"]
