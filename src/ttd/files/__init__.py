"""Files: written whole or not at all, read and checked leaf by leaf, named so that they stay in their folder."""

from ttd.files.writing import DISK_FULL, check_there, may_run, remove_leftovers, whole_file, whole_folder

__all__ = ["DISK_FULL", "check_there", "may_run", "remove_leftovers", "whole_file", "whole_folder"]
