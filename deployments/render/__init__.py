"""Manifests for Kubernetes, printed from the settings: `chroma render k8s`."""
