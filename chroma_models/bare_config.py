"""As much of pydantic as chroma_models/config.py asks for, where pydantic is not installed.

Unknown keys are refused; values are not checked, since no operator writes settings for a benchmark.
"""

import inspect
from typing import Any, ClassVar

NonNegativeFloat = PositiveFloat = float
NonNegativeInt = PositiveInt = int
ConfigDict = dict


class BaseModel:
    """Fields are the annotated names of the class and its bases, with their defaults."""

    model_config: ClassVar[dict[str, Any]] = {}

    def __init__(self, **values: Any) -> None:
        names = {name for cls in type(self).__mro__ for name in inspect.get_annotations(cls)}
        names.discard("model_config")
        unknown = values.keys() - names
        if unknown:
            raise TypeError(f"{type(self).__name__} has no {', '.join(sorted(unknown))}")
        vars(self).update({name: values[name] if name in values else getattr(self, name) for name in names})

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def model_dump(self) -> dict[str, Any]:
        return dict(vars(self))
