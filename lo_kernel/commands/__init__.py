"""What the command line does, a module for each command; `lo_kernel.cli` picks."""
