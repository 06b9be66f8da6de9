"""The KL of rolled-out clips: predicted and measured."""
