"""System call filters: from the configuration's seccomp section to a program that the kernel takes."""
