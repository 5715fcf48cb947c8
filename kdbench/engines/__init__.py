"""Engines run tasks in processes of this machine, in this process, or on a Ray cluster; they know no distillation."""
