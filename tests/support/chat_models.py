"""Models of MLflow's chat APIs that answer at once and in chunks, and use all fields of MLflow's classes."""

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import mlflow
from mlflow.pyfunc.model import ChatAgent, ChatModel
from mlflow.types.agent import ChatAgentChunk, ChatAgentMessage, ChatAgentResponse
from mlflow.types.chat import ChatUsage, Function, ToolCall
from mlflow.types.llm import (
    ChatChoice,
    ChatChoiceDelta,
    ChatChoiceLogProbs,
    ChatChunkChoice,
    ChatCompletionChunk,
    ChatCompletionResponse,
    ChatMessage,
    FunctionToolCallArguments,
    TokenLogProb,
    TokenUsageStats,
)
from packaging.version import Version

HAS_RESPONSES_AGENT = Version(mlflow.__version__) >= Version("3.0")

if HAS_RESPONSES_AGENT:
    from mlflow.pyfunc.model import ResponsesAgent
    from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentResponse, ResponsesAgentStreamEvent

cloudpickle.register_pickle_by_value(sys.modules[__name__])

CREATED = 1_700_000_000

DONE = "response.output_item.done"


class Chat(ChatModel):
    """Repeats the last message, word by word in a stream. Calls a tool if the request has one."""

    def predict(self, context: Any, messages: list[ChatMessage], params: Any) -> ChatCompletionResponse:
        text = str(messages[-1].content)
        message = ChatMessage(role="assistant", content=text)
        if params.tools:
            call = FunctionToolCallArguments(name="look", arguments='{"at": "it"}').to_tool_call(id="call-1")
            message = ChatMessage(role="assistant", tool_calls=[call])
        logprobs = ChatChoiceLogProbs([TokenLogProb(text, -0.25, [])]) if params.n > 1 else None
        usage = TokenUsageStats(prompt_tokens=len(messages), completion_tokens=1) if params.temperature < 1 else None
        return ChatCompletionResponse(
            choices=[ChatChoice(message, index, logprobs=logprobs) for index in range(params.n)],
            usage=usage,
            created=CREATED,
            custom_outputs=params.custom_inputs,
        )

    def predict_stream(self, context: Any, messages: list[ChatMessage], params: Any) -> Iterator[ChatCompletionChunk]:
        for word in str(messages[-1].content).split():
            logprobs = ChatChoiceLogProbs([TokenLogProb(word, -0.25, [], list(word.encode()))])
            choice = ChatChunkChoice(ChatChoiceDelta(content=word), logprobs=logprobs if params.n > 1 else None)
            yield ChatCompletionChunk([choice], id="chunk-1", created=CREATED)
        usage = TokenUsageStats(prompt_tokens=1, completion_tokens=1, total_tokens=2)
        last = ChatChunkChoice(ChatChoiceDelta(role=None), finish_reason="stop")
        yield ChatCompletionChunk([last], usage, model="m", created=CREATED, custom_outputs=params.custom_inputs)


class Agent(ChatAgent):
    """The model of Chat as a ChatAgent. It can return dicts with keys that MLflow's classes do not have."""

    def predict(self, messages: list[ChatAgentMessage], context: Any = None, custom_inputs: Any = None) -> Any:
        answer = ChatAgentMessage(role="assistant", content=messages[-1].content, id="message-1")
        usage = ChatUsage.model_validate(
            {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "cost": {"dollars": 0.5}}
        )
        response = ChatAgentResponse(
            messages=[answer], finish_reason="stop", custom_outputs=custom_inputs, usage=usage if context else None
        )
        if not (custom_inputs or {}).get("dicts"):
            return response
        plain = response.model_dump()
        plain["messages"][0]["mood"] = {"calm": [True, None, 1, 0.5]}
        return {**plain, "sources": ["a", "b"]}

    def predict_stream(
        self, messages: list[ChatAgentMessage], context: Any = None, custom_inputs: Any = None
    ) -> Iterator[Any]:
        for word in str(messages[-1].content).split():
            chunk = ChatAgentChunk(delta=ChatAgentMessage(role="assistant", content=word, id="message-1"))
            yield {**chunk.model_dump(), "place": 1} if (custom_inputs or {}).get("dicts") else chunk
        tool = ToolCall(id="call-1", function=Function(name="look", arguments="{}"))
        yield ChatAgentChunk(
            delta=ChatAgentMessage(role="assistant", tool_calls=[tool], id="message-2", attachments={"a": "b"}),
            finish_reason="tool_calls",
            custom_outputs=custom_inputs,
            usage=ChatUsage.model_validate({"total_tokens": 3, "cost": {"dollars": 0.5}}),
        )


MODELS: dict[str, type] = {"chat": Chat, "agent": Agent}

if HAS_RESPONSES_AGENT:

    class Responses(ResponsesAgent):
        """The model of Chat as a ResponsesAgent, with a reasoning item and a function call before the message."""

        def predict(self, request: ResponsesAgentRequest) -> ResponsesAgentResponse:
            done = [event.model_dump()["item"] for event in self.predict_stream(request) if event.type == DONE]
            return ResponsesAgentResponse(
                output=done,
                custom_outputs=request.custom_inputs,
                temperature=request.temperature,
                metadata=request.metadata,
                tools=request.tools,
                text={"format": {"type": "text"}},
                id="response-1",
            )

        def predict_stream(self, request: ResponsesAgentRequest) -> Iterator[ResponsesAgentStreamEvent]:
            text = str(getattr(request.input[-1], "content", ""))
            yield ResponsesAgentStreamEvent.model_validate({"type": "response.created", "response": {"output": []}})
            for word in text.split():
                yield ResponsesAgentStreamEvent(**self.create_text_delta(word, "message-1"))
            items = [
                {"type": "reasoning", "id": "reasoning-1", "summary": [{"type": "summary_text", "text": "no need"}]},
                self.create_function_call_item("call-1", "call-1", "look", "{}"),
                self.create_text_output_item(text, "message-1"),
            ]
            for item in items:
                yield ResponsesAgentStreamEvent.model_validate(
                    {"type": DONE, "item": item, "custom_outputs": request.custom_inputs}
                )

    MODELS["responses"] = Responses


def save(name: str, path: Path, **more: Any) -> None:
    """Saves one of the models, with MLflow's own example by default."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow recommends ResponsesAgent for all models.
        mlflow.pyfunc.save_model(path, python_model=MODELS[name](), pip_requirements=["mlflow"], **more)
