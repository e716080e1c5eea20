"""`python -m clbench`."""

from clbench.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
