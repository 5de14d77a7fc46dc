"""Print the manifests that settings decide."""

from pathlib import Path

from deployments.settings import Settings


def render_k8s(settings_file: Path, out: Path) -> None:
    """Raises InvalidRequest."""
    from deployments.render.manifests import write

    for path in write(Settings.load(settings_file), out):
        print(path)
