"""``python -m pascalc``: the command line, where its script is not on the path."""

from pascalc.cli import main

if __name__ == "__main__":
    main(prog_name="pascalc")
