"""The model: shapes, cuts and counts (without torch), one stage as a torch module, and the export.

Import the submodules. Some must load without torch, so that nothing is imported here.
"""
