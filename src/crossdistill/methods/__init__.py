"""Distillation methods: one file each."""
