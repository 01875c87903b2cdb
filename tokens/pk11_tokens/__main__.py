"""`python -m pk11_tokens` is `pk11-tokens`."""

from .cli import main

if __name__ == "__main__":
    main(prog_name="pk11-tokens")
