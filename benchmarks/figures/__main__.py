"""The command line: python -m benchmarks.figures"""

from benchmarks.figures.run import command

if __name__ == "__main__":
    command()
