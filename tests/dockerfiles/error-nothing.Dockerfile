#: error 0
# nothing at all
