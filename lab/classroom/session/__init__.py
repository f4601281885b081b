"""A class that is being held: who is in it, what they guessed, how far it is. All of it in one SQLite file."""
