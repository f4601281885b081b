"""What commands are made of: options that several have, completion, what is seen while they measure, Ctrl-C."""
