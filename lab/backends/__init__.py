"""What is isolated: a module for each way to do it, none of which knows who measures."""
