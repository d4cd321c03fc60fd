"""Triton's Python model ``showface_photo``: a picture and its hole in, the finished picture out.

It needs ``pip install showface`` in Triton's container, and asks the ensemble ``showface`` for the face.
"""

import json
from typing import Any

import triton_python_backend_utils as pb_utils

from showface.runtime.errors import ShowfaceError
from showface.runtime.faces.tensors import composite, prepare
from showface.runtime.stages import CHAIN_INPUTS, CHAIN_OUTPUT

ENSEMBLE = "showface"


class TritonPythonModel:
    """What Triton calls; each instance completes one picture at a time."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the name of the output and the size of the networks' input."""
        config = json.loads(args["model_config"])
        self.output = config["output"][0]["name"]
        self.parameters = {key: value["string_value"] for key, value in config["parameters"].items()}

    def execute(self, requests: list[Any]) -> list[Any]:
        """Return a response for each request; one that fails does not touch the others."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        picture, hole = (pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in ("picture", "hole"))
        try:
            inputs = prepare(picture, hole, int(self.parameters["image_size"]), "picture")
        except ShowfaceError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
        tensors = [pb_utils.Tensor(name, value[None]) for name, value in zip(CHAIN_INPUTS, inputs, strict=True)]
        reply = pb_utils.InferenceRequest(
            model_name=ENSEMBLE, inputs=tensors, requested_output_names=[CHAIN_OUTPUT]
        ).exec()
        if reply.has_error():
            return pb_utils.InferenceResponse(error=reply.error())
        completed = pb_utils.get_output_tensor_by_name(reply, CHAIN_OUTPUT).as_numpy()[0]
        finished = composite(picture, hole, completed)
        return pb_utils.InferenceResponse([pb_utils.Tensor(self.output, finished)])
