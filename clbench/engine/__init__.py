"""The engine's parts. `clbench/run.py` is the loop that uses them."""
