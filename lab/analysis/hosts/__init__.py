"""Runs of many hosts: a ratio within each, then all of them together by random effects."""
