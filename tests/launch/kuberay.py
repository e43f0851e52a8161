"""KubeRay's resource definitions as schemas in which unknown fields are errors (the API server drops them silently)."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(os.environ.get("GENERATIVE_KUBERAY") or Path(__file__).parents[3] / "shared/data/kuberay")
FILES = {"RayCluster": "ray.io_rayclusters.yaml", "RayJob": "ray.io_rayjobs.yaml"}
MISSING = f"KubeRay's definitions are not in {FOLDER} (set GENERATIVE_KUBERAY to the folder with {FILES['RayJob']})"


def available() -> bool:
    return all((FOLDER / name).is_file() for name in FILES.values())


def problems(manifest: dict[str, Any]) -> list[str]:
    """What is wrong with a manifest by the definition of its kind; [] where nothing is."""
    errors = _validator(manifest["kind"], manifest["apiVersion"].partition("/")[2]).iter_errors(manifest)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message[:200]}" for error in errors]


@functools.cache
def _validator(kind: str, version: str) -> Any:
    """Kept, since a definition is a megabyte of YAML."""
    import jsonschema

    definition = yaml.load((FOLDER / FILES[kind]).read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (schema,) = [v["schema"]["openAPIV3Schema"] for v in definition["spec"]["versions"] if v["name"] == version]
    _strict(schema["properties"]["spec"])
    return jsonschema.Draft7Validator(schema)


def _strict(schema: Any) -> None:
    """In place: fields that are not listed are errors; Kubernetes' own extensions in JSON schema's words."""
    if isinstance(schema, list):
        for part in schema:
            _strict(part)
    if not isinstance(schema, dict):
        return
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        schema["type"] = ["integer", "string"]
    # Formats such as int64 are Kubernetes' own.
    schema.pop("format", None)
    for part in list(schema.values()):
        _strict(part)
