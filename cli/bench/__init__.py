"""Running a folder of instances in VNN-COMP layout, one process an instance."""
