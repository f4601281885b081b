"""What becomes of the first process in its last moments before execve(2): rights, user, filters."""
