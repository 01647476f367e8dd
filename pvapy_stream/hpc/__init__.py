"""The streaming framework: processors, stages, consumers, their channels."""
