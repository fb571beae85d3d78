"""`python -m slipstick` is the program `slipstick`."""

from slipstick.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
