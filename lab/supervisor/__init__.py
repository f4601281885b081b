"""Detached instances: each has one small supervisor that holds its log and its exit code.

record      what is known of an instance on disk; outlives everything
supervise   THE STORY OF A DETACHED INSTANCE, the supervisor's main program
control     the messages between a supervisor and the commands that ask it
server      … its side of them
client      … their side, and starting a supervisor or having a new one take over
"""
