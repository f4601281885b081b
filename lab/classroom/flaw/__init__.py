"""Find the flaw: recorded runs with one planted fault each, a sealed key, and answers that are checked."""
