"""`lab-oci`: the OCI runtime command line over `lab.runtime` (runtime-spec, runtime.md; runc(8) for the options).

main        global options, the verb, errors to people and to the log
options     a command line, as runc's callers write it
life        THE STORY: create → start → delete, and run, which is all three
store       what is known of a container between two commands: its folder, its lock, its state
signals, execute, groups, tables, describe, …
            the other verbs, a module for those that belong together

Every verb is a process of its own that a manager waits for, so a module is imported when its verb is called, and
imports no more than it needs: the standard library without site packages, and of that what `lab.shims` allows.
"""
