"""MLflow models with decorators of ml-base.

Rule of this module: whatever the decorators do not change stays MLflow's: names, versions, schemas and messages.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from mlflow_grpc.choices import UnknownColumns
from mlflow_grpc.config import ModelConfig
from mlflow_grpc.contract.types import Contract, has_tensors
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.errors import StartError

if TYPE_CHECKING:  # Importing it takes seconds.
    from mlflow_grpc.hosting.pyfunc.model import PyfuncModel


def decorated(model: "PyfuncModel", config: ModelConfig, unknown_columns: UnknownColumns) -> ServableModel:
    """Wraps an MLflow model in its decorators, which get records.

    Args:
        model: The MLflow model.
        config: Its configuration, with the decorators.
        unknown_columns: What happens to columns that the model does not have.

    Raises:
        StartError: The package ml-base is missing, or a decorator fails.

    """
    from mlflow_grpc.hosting.mlmodel import adapter
    from mlflow_grpc.payload.mlmodel_json import MLModelCodec

    try:
        from mlflow_grpc.hosting.mlmodel.from_pyfunc import MlflowModel
    except ModuleNotFoundError as error:
        raise StartError("decorators need the package ml-base: pip install ml-base") from error
    inside = MlflowModel(loaded=model.loaded, qualified_name=model.name, version=model.version)
    shown = adapter.decorate(inside, config.decorators)
    around = adapter.MLModel(shown, adapter.NEWER, name=model.name)
    if shown.version == inside.version:
        around.version = model.version
    # Schemas that the decorators do not change stay MLflow's, so that a decorator that does nothing changes no message.
    info, model_info = around.info, model.info
    same_inputs = shown.input_schema is inside.input_schema and not has_tensors(model_info.contract.inputs)
    same_outputs = shown.output_schema is inside.output_schema
    around.info = replace(
        info,
        flavors=model_info.flavors,
        run_id=model_info.run_id,
        model_id=model_info.model_id,
        lock=model_info.lock,
        contract=Contract(
            model_info.contract.inputs if same_inputs else info.contract.inputs,
            model_info.contract.outputs if same_outputs else info.contract.outputs,
        ),
        input=model_info.input if same_inputs else info.input,
        output=model_info.output if same_outputs else info.output,
    )
    # MLflow reads an empty cell of CSV as NaN, which the model's schema takes in these columns.
    nan_fields = inside.columns_with_empty_csv_cells if shown.input_schema is inside.input_schema else frozenset[str]()
    codec = MLModelCodec(around.schema, unknown_columns=unknown_columns, nan_fields=nan_fields)
    return ServableModel(
        around,
        codec,
        batching_reason="its decorators take the rows of one call",
        rest_records=around.rest_records(codec.ignored_fields),
    )
