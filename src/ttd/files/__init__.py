"""Files: atomic writing, checked reading, names and paths inside a folder."""

from ttd.files.writing import DISK_FULL, check_there, may_run, remove_leftovers, whole_file, whole_folder, write_file

__all__ = ["DISK_FULL", "check_there", "may_run", "remove_leftovers", "whole_file", "whole_folder", "write_file"]
