"""The meaning of a save, pure: values and functions without I/O."""
