"""The frozen models that a study file is made of: an unknown setting is refused with the nearest valid name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from crossdistill.core.errors import nearest


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_settings(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            for name in data:
                if name not in cls.model_fields:
                    message = (
                        f"there is no setting '{name}' here.{nearest(str(name), cls.model_fields)} There are: {', '.join(cls.model_fields)}"
                    )
                    raise PydanticCustomError("unknown_setting", "{message}", {"message": message, "path": [name]})
        return data


class WithSettings(Frozen):
    """A model that keeps what it does not know in `settings`, for the plug-in to validate."""

    settings: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_settings(cls, data: Any) -> Any:
        if isinstance(data, str) and (short := cls.model_fields.keys() & {"name", "source"}):
            data = {short.pop(): data}  # `kd` for `{name: kd}`
        if not isinstance(data, Mapping):
            return data
        known = {name: value for name, value in data.items() if name in cls.model_fields}
        rest = {name: value for name, value in data.items() if name not in cls.model_fields}
        return {**known, "settings": {**known.get("settings", {}), **rest}}


def fail(path: Iterable[str | int], message: str) -> NoReturn:
    """Refuse what stands at that place of the study file."""
    raise PydanticCustomError("study", "{message}", {"message": message, "path": list(path)})
