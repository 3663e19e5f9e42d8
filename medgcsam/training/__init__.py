"""Network, optimizer and task at work: checkpoints, history and predictions of one run."""

from medgcsam.training.run import train

__all__ = ["train"]
