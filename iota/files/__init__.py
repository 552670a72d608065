"""Files that stay intact with several processes and after crashes: atomic writes, and locks."""

from iota.files.lock import FileLock
from iota.files.whole import remove_unfinished, whole_file, whole_folder, write_whole

__all__ = ["FileLock", "remove_unfinished", "whole_file", "whole_folder", "write_whole"]
