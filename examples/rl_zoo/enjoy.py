"""RL Zoo's enjoy with the recurrent agents: the same arguments."""

import recurrent_agents  # noqa: F401 - registers them
from rl_zoo3.enjoy import enjoy

if __name__ == "__main__":
    enjoy()
