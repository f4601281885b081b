"""Dockerfiles as data: parsed, checked, their variables expanded. Pure; nothing is built here."""
