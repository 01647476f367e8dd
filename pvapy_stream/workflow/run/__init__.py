"""How a workflow runs: projects, the scheduler, programs of stages, steps and their sets."""
