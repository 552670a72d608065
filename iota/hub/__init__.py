"""The Hugging Face Hub: files of its models, and which of its failures pass by themselves."""

from iota.hub.asking import HubAway, asking, model_folder

__all__ = ["HubAway", "asking", "model_folder"]
