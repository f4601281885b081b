"""Commands about a class: lessons, the server, marks, planted faults."""
