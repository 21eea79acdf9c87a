"""The command line: python -m benchmarks.memory"""

from benchmarks.memory.run import command

if __name__ == "__main__":
    command()
