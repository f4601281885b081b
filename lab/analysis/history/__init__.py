"""Many nights of the same thing: what each said, lines through them, and where these changed."""
