"""The demo agent and the benchmarks."""
