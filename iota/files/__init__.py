"""Files that stay intact with several processes and after crashes: atomic writes, locks, checked headers."""

from iota.files.lock import FileLock
from iota.files.tensor_file import TensorFile, TensorFileError, check_tensors, write_tensors
from iota.files.whole import remove_unfinished, whole_file, whole_folder, write_whole

__all__ = [
    "FileLock",
    "TensorFile",
    "TensorFileError",
    "check_tensors",
    "remove_unfinished",
    "whole_file",
    "whole_folder",
    "write_tensors",
    "write_whole",
]
