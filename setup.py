"""Maps the folders `verify/`, `specs/` and `cli/` to subpackages of the one import package `boundsmith`."""

from setuptools import find_packages, setup

FOLDERS = ("specs", "verify", "cli")

setup(
    package_dir={f"boundsmith.{folder}": folder for folder in FOLDERS},
    packages=[
        f"boundsmith.{package}"
        for folder in FOLDERS
        for package in (folder, *(f"{folder}.{inner}" for inner in find_packages(folder)))
    ],
    package_data={f"boundsmith.{folder}": ["py.typed", "**/*.html", "**/*.json"] for folder in FOLDERS},
)
