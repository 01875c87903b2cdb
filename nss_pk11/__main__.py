"""`python -m nss_pk11` is the `nss-pk11` command."""

from .cli import main

if __name__ == "__main__":
    main(prog_name="nss-pk11")
