"""Which of two models answers a call: the one that it names, or its challenger.

Rule of this module: it decides by the call's metadata, so that a caller stays with the same model. Calls of a model
without a challenger cost one look at an attribute. A call that names a version is answered by that version.
"""

from _mlflow_grpc_protocol.metadata import MODEL_KEY

from mlflow_grpc.calls.call import Call
from mlflow_grpc.engine.catalog import Entry


def answering(call: Call, entry: Entry) -> Entry:
    """Returns the model that answers a call, and notes its version, and whether a challenger runs behind the call.

    Args:
        call: The call, whose caller may call the model.
        entry: The model that the call names.

    """
    challenger, rule = entry.challenger, entry.config.challenger
    if challenger is None or rule is None:
        return entry
    key = call.metadata(rule.sticky_by) if rule.sticky_by is not None else None
    is_selected = challenger.takes_calls and rule.selects(f"{entry.name}/{key or call.request_id}")
    call.is_shadowed = is_selected and rule.shadow
    names_version = call.names_version or "/" in (call.metadata(MODEL_KEY) or "")
    answers = challenger if is_selected and not rule.shadow and not names_version else entry
    call.version_trailers = answers.version_trailers
    return answers
