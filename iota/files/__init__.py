"""Files that several processes and crashes may meet: written whole or not at all, and locked."""

from iota.files.lock import FileLock
from iota.files.whole import remove_unfinished, whole_file, whole_folder, write_whole

__all__ = ["FileLock", "remove_unfinished", "whole_file", "whole_folder", "write_whole"]
