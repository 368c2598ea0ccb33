"""The subcommands of the command line: parse, call one room after the other, print.

Results go to stdout, all else to stderr. Rooms are imported where they are used, so that `--help`
and `targets` answer at once.
"""
