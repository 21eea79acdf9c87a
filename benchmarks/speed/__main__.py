"""The command line: python -m benchmarks.speed"""

from benchmarks.speed.run import command

if __name__ == "__main__":
    command()
