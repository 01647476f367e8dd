"""What a workflow is: parameters, stages, the graph, its files, and how it is wired."""
