"""The command line: python -m benchmarks.release"""

from benchmarks.release.run import command

if __name__ == "__main__":
    command()
