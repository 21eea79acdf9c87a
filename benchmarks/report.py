"""`python -m benchmarks.report`, as committed results and documents name it: `benchmarks.atari100k.report`."""

from benchmarks.atari100k.report import command

if __name__ == "__main__":
    command()
