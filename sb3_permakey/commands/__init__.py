"""The commands of `sb3-permakey`: a module each, whose `run` takes its settings and says what it did."""
