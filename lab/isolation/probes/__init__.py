"""The questions: a module a group of them, each probe a class. All of them are found by themselves."""
