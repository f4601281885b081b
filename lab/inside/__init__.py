"""lab's static helper program: the same few kilobytes of machine code inside every instance."""
