"""What `sb3-permakey view` shows: play, looked at one frame at a time, and the local page on which it is seen."""
