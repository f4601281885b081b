"""The command line: parse, call, print, exit code. A file per noun or verb; only this package prints or exits."""
