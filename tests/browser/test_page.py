"""The page in a real browser: forms, answers, errors at their fields, streams, files, code to copy, live figures."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from playwright.sync_api import expect

from tests.browser import models
from tests.support.node import install_buf
from tests.support.servers import ROOT

CALLED = [name for name in models.ZOO if name != "no_signature"]


def predict(page):
    page.get_by_role("button", name="Predict").click()


def answer(page):
    """The answer as the page shows it: its JSON."""
    expect(page.locator(".answer")).to_be_visible()
    page.get_by_role("tab", name="JSON", exact=True).click()
    return json.loads(page.get_by_label("Answer as JSON").inner_text())


def described(server, name):
    (model,) = [
        model for model in requests.get(f"{server.url}/models", timeout=30).json()["models"] if model["name"] == name
    ]
    return model


def field(page, name, row=0):
    return page.locator(f'[data-field="{name}"]').nth(row)


def error_of(control):
    """The text that a screen reader reads as the error of a field."""
    ids = control.get_attribute("aria-describedby").split()
    return " ".join(
        control.page.locator(f"#{name}.field-error").inner_text() for name in ids if name.startswith("error")
    )


@pytest.mark.parametrize("name", CALLED)
def test_a_form_has_the_example_filled_in(server, open_model, name):
    """Predict without a change sends what the example has: the model gets the same values as from the example itself."""
    model = described(server, name)
    page = open_model(name)
    predict(page)
    payload = model["example"] or '{"inputs": []}'
    url = f"{server.url}/models/{name}/invocations"
    expected = requests.post(url, data=payload, headers={"content-type": "application/json"}, timeout=30)
    assert expected.status_code == 200, expected.text
    assert answer(page) == expected.json()


def test_a_form_has_the_params_of_the_example(open_model):
    """Params that were logged with the model are filled in, and sent instead of their defaults."""
    page = open_model("with_params")
    expect(field(page, "params.top_k")).to_have_value("9")
    expect(field(page, "params.stops")).to_have_value('["x"]')
    expect(field(page, "params.is_short").locator("option:checked")).to_have_text("true")
    predict(page)
    params = dict(answer(page)["predictions"]["params"]["items"])
    assert params["'top_k'"] == "int 9"
    assert params["'stops'"]["items"] == ["str 'x'"]
    assert params["'word'"] == "str 'yes'"


def test_the_models_are_listed_with_what_they_are(server, open_model):
    """Name, state, flavors, and whether calls are batched and why, as service Models describes it."""
    page = open_model("sums")
    facts = page.locator(".facts")
    model = described(server, "sums")
    expect(facts).to_contain_text("ready")
    expect(facts).to_contain_text("python_function")
    expect(facts).to_contain_text(f"no: {model['batching_reason']}")
    listed = page.get_by_role("navigation", name="Models").get_by_role("link")
    assert listed.count() == len(models.ZOO) + 8
    page.get_by_label("Filter the models").fill("sum")
    assert listed.count() == 1


def test_a_model_that_failed_shows_why_and_one_without_an_endpoint_has_no_form(open_model):
    """The page shows the error of a failed model as text, and no form for a model without an endpoint."""
    page = open_model("failed")
    expect(page.locator(".problem")).to_contain_text(f"It is gone: {models.MARKUP}")
    assert page.get_by_role("button", name="Predict").count() == 0
    open_model("hidden")
    expect(page.locator("main .note")).to_contain_text("no endpoint")
    assert page.get_by_role("button", name="Predict").count() == 0


def test_values_arrive_as_they_were_typed(open_model):
    """A long beyond 2**53, a float, a text with quotes, a date, false."""
    page = open_model("every_column")
    field(page, "long").fill("9007199254740993")
    field(page, "double").fill("1e-7")
    field(page, "string").fill('"é\\')
    field(page, "boolean").select_option("false")
    field(page, "datetime").fill("2024-02-29T23:59:58")
    predict(page)
    cells = [column[0] for column in answer(page)["predictions"]["input"]["cells"]]
    assert cells[0] == "bool False"
    assert cells[2] == "int 9007199254740993"
    assert cells[4] == "float 1e-07"
    assert cells[5] == "str '\"é\\\\'"
    assert "2024-02-29 23:59:58" in cells[7]


def test_optional_fields_are_left_out_until_they_are_filled(open_model):
    """The page sends only the optional columns that have a value."""
    page = open_model("optional")
    field(page, "need").fill("2.5")
    page.get_by_text("Optional fields").click()
    field(page, "may_string").fill("x")
    predict(page)
    columns = answer(page)["predictions"]["input"]["columns"]
    assert [name for name, _ in columns] == ["'need'", "'may_string'"]


def test_rows_and_params(open_model):
    """A row more is predicted in the same call; a param that is not filled has its default."""
    page = open_model("params")
    page.get_by_role("button", name="Add row").click()
    field(page, "a", 1).fill("7.5")
    field(page, "params.top_k").fill("4")
    field(page, "params.stops").fill('["b", "c"]')
    predict(page)
    predictions = answer(page)["predictions"]
    assert predictions["input"]["cells"] == [["float 1.0", "float 7.5"]]
    params = dict(map(tuple, [(key, str(value)) for key, value in predictions["params"]["items"]]))
    assert params["'top_k'"] == "int 4"
    assert params["'temperature'"] == "float 0.5"
    assert "str 'b'" in params["'stops'"]
    page.get_by_role("button", name="Remove row").click()
    predict(page)
    expect(page.get_by_label("Answer as JSON")).not_to_contain_text("7.5")


@pytest.mark.parametrize(
    ("model", "name", "text"),
    [
        ("every_column", "integer", "twelve"),
        ("params", "params.top_k", "a"),
        ("structures", "person", '{"name": 1}'),
        ("tensor", "0", "[[1.0]]"),
        ("hint_person", "0", '{"name": "x"}'),
        ("unnamed", "1", "x"),
    ],
)
def test_an_error_is_shown_at_its_field(open_model, model, name, text):
    """The field at fault has the server's words, the mark for screen readers, and the focus."""
    page = open_model(model)
    control = field(page, name)
    control.fill(text)
    predict(page)
    expect(page.get_by_role("alert")).to_be_visible()
    expect(control).to_have_attribute("aria-invalid", "true")
    expect(control).to_be_focused()
    assert page.locator("[aria-invalid]").count() == 1
    assert error_of(control)
    assert page.observed.refused == 1


def test_an_error_is_shown_in_its_row(open_model):
    """The second row is marked, and the mark goes once the value is right."""
    page = open_model("params")
    page.get_by_role("button", name="Add row").click()
    second = field(page, "a", 1)
    second.fill("x")
    predict(page)
    expect(second).to_be_focused()
    expect(field(page, "a", 0)).not_to_have_attribute("aria-invalid", "true")
    second.fill("2")
    predict(page)
    assert answer(page)["predictions"]["input"]["cells"] == [["float 1.0", "float 2.0"]]
    assert page.locator("[aria-invalid]").count() == 0


def test_what_is_no_json_is_not_sent(open_model):
    """A field for JSON says where the text is wrong, and nothing is called."""
    page = open_model("structures")
    field(page, "numbers").fill("[1, 2")
    predict(page)
    expect(field(page, "numbers")).to_be_focused()
    assert "not valid JSON" in error_of(field(page, "numbers"))
    assert not [path for path in page.observed.paths if path.endswith("/invocations")]


def test_a_model_without_a_signature_has_an_editor_for_payloads(open_model):
    """The page sends the payload for a model without a signature unchanged."""
    page = open_model("no_signature")
    page.get_by_label("Payload for POST /invocations").fill('{"inputs": [[1, 2.0]]}')
    predict(page)
    assert answer(page)["predictions"]["input"]["cells"] == ["float 1.0", "float 2.0"]


def test_a_payload_can_be_edited_as_json(open_model):
    """The editor begins with the values of the form, and keeps what was edited."""
    page = open_model("every_column")
    field(page, "long").fill("9007199254740993")
    page.get_by_role("tab", name="Payload as JSON").click()
    editor = page.get_by_label("Payload for POST /invocations")
    assert '"long": 9007199254740993' in editor.input_value()
    editor.fill(editor.input_value().replace("9007199254740993", "5"))
    page.get_by_role("tab", name="Form").click()
    page.get_by_role("tab", name="Payload as JSON").click()
    predict(page)
    assert answer(page)["predictions"]["input"]["cells"][2] == ["int 5"]


def test_chat_messages(open_model):
    """A conversation of several messages; a chat model answers its last one, and streams it word by word."""
    page = open_model("chat_model")
    page.get_by_label("Message", exact=True).fill("one")
    page.get_by_role("button", name="Add message").click()
    page.get_by_label("Message", exact=True).nth(1).fill("two three")
    predict(page)
    assert answer(page)["choices"][0]["message"]["content"] == "two three"
    page.get_by_role("button", name="Stream").click()
    expect(page.locator(".stream-text")).to_have_text("twothree")
    expect(page.get_by_role("status").first).to_contain_text("The stream has ended")


def test_parts_of_a_stream_are_shown_as_they_arrive(open_model):
    """The first part is there while the model still makes the second."""
    models.GATE.clear()
    page = open_model("gated")
    page.get_by_role("button", name="Stream").click()
    parts = page.get_by_label("Parts of the answer").get_by_role("listitem")
    expect(parts).to_have_count(1)
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    models.GATE.set()
    expect(parts).to_have_count(2)
    expect(parts.nth(1)).to_contain_text('{"part": 2}')
    expect(page.get_by_role("button", name="Cancel")).to_be_hidden()


def test_a_stream_can_be_cancelled(open_model):
    """The parts that arrived stay, and the page says that it was cancelled."""
    models.GATE.clear()
    page = open_model("gated")
    page.get_by_role("button", name="Stream").click()
    expect(page.get_by_label("Parts of the answer").get_by_role("listitem")).to_have_count(1)
    page.get_by_role("button", name="Cancel").click()
    models.GATE.set()
    expect(page.get_by_role("alert")).to_have_text("Cancelled.")
    expect(page.get_by_label("Parts of the answer").get_by_role("listitem")).to_have_count(1)


def test_an_answer_is_a_table_with_its_times(open_model):
    """Predictions are rows; the bars have the steps of header server-timing."""
    page = open_model("sums")
    field(page, "x").fill("2")
    field(page, "y").fill("0.5")
    field(page, "text").fill("abc")
    predict(page)
    table = page.get_by_label("Answer as a table")
    expect(table).to_be_visible()
    assert table.locator("thead th").all_inner_texts() == ["#", "sum", "length"]
    assert table.locator("tbody tr > *").all_inner_texts() == ["1", "2.5", "3"]
    steps = page.get_by_label("Where the time went").get_by_role("rowheader").all_inner_texts()
    assert {"waiting", "model", "network and browser"} <= set(steps)


def test_text_never_becomes_markup(open_model):
    """Names, keys and values with HTML are shown letter by letter, and run nothing."""
    page = open_model("markup")
    predict(page)
    expect(page.get_by_label("Answer as a table")).to_contain_text(models.MARKUP)
    assert answer(page) == {"predictions": [{models.MARKUP: models.MARKUP}]}
    assert page.title() == "markup · mlflow-grpc"
    assert page.locator("main img, main script").count() == 0


def scored(page, folder, name, content):
    """Scores a CSV file and returns the rows of the file that is offered."""
    file = folder / name
    file.write_bytes(content.encode())
    page.get_by_label("Drop a CSV file").set_input_files(file)
    link = page.get_by_role("link", name="Download")
    link.wait_for(timeout=100_000)
    with page.expect_download() as download:
        link.click()
    assert download.value.suggested_filename == name.replace(".csv", "-predictions.csv")
    return list(csv.reader(io.StringIO(download.value.path().read_bytes().decode(), newline="")))


@pytest.mark.alone
def test_a_hundred_thousand_rows_do_not_freeze_the_page(open_model, tmp_path):
    """All rows come back in order with their predictions, and no task of the page takes half a second."""
    page = open_model("sums")
    page.evaluate("""() => {
        window.longest = 0;
        new PerformanceObserver((list) => list.getEntries().forEach((entry) => {
            window.longest = Math.max(window.longest, entry.duration);
        })).observe({ type: "longtask" });
    }""")
    rows = [(number, number / 4, f"t{number}") for number in range(100_000)]
    content = "x,y,text\n" + "".join(f"{x},{y},{text}\n" for x, y, text in rows)
    header, *lines = scored(page, tmp_path, "many.csv", content)
    assert header == ["x", "y", "text", "prediction_sum", "prediction_length"]
    assert len(lines) == len(rows)
    for (x, y, text), line in zip(rows, lines, strict=True):
        assert line[:3] == [str(x), str(y), text]
        assert (float(line[3]), int(line[4])) == (x + y, len(text))
    assert page.evaluate("window.longest") < 500


def test_quotes_line_breaks_and_blank_lines_of_a_file(open_model, tmp_path):
    """The page reads a CSV file into the same records as pandas."""
    page = open_model("sums")
    content = '\ufeffx,y,text\r\n1,2,"a\r\nb, ""c"""\r\n\r\n  \n3,4,d'
    assert scored(page, tmp_path, "odd.csv", content) == [
        ["x", "y", "text", "prediction_sum", "prediction_length"],
        ["1", "2", 'a\r\nb, "c"', "3.0", "9"],
        ["3", "4", "d", "7.0", "1"],
    ]


@pytest.mark.parametrize(
    ("model", "content", "problem"),
    [
        ("sums", b"x,y,text\n" + b"1,2,a\n" * 2500 + b"one,2,a\n", "Rows 2,001 to 2,501: The payload does not fit"),
        ("sums", b"x,y,text\n1,2,\xff\n", "not UTF-8"),
        ("sums", b"x,y,text\n", "no rows"),
        ("one_answer", b"x\n1\n2\n", "answers 2 rows with 1 predictions"),
    ],
    ids=["a wrong cell", "another encoding", "no rows", "a model that does not answer row by row"],
)
def test_a_file_that_cannot_be_scored_says_why(open_model, model, content, problem):
    """The message names the rows at fault, and no file is offered."""
    page = open_model(model)
    file = {"name": "bad.csv", "mimeType": "text/csv", "buffer": content}
    page.get_by_label("Drop a CSV file").set_input_files(file)
    expect(page.locator(".drop .problem")).to_contain_text(problem)
    assert page.get_by_role("link", name="Download").count() == 0


def test_a_file_can_be_dropped_anywhere(open_model):
    """Dropped on the list of models, it is scored by the model that is shown."""
    page = open_model("sums")
    data = page.evaluate_handle("""() => {
        const data = new DataTransfer();
        data.items.add(new File(["x,y,text\\n1,2,a\\n"], "dropped.csv", { type: "text/csv" }));
        return data;
    }""")
    page.dispatch_event("nav.models", "drop", {"dataTransfer": data})
    expect(page.get_by_role("link", name="Download dropped-predictions.csv")).to_be_visible()


def snippet(page, name):
    page.get_by_role("tab", name=name, exact=True).click()
    return page.get_by_label(f"The call for {name}").inner_text()


def predict_with_odd_values(open_model):
    """Predicts with values that shells, JSON and JavaScript's numbers may change, and returns the page."""
    page = open_model("every_column")
    field(page, "string").fill('it\'s "é" $HOME')
    field(page, "long").fill("9007199254740993")
    predict(page)
    return page


@pytest.mark.parametrize("name", ["curl", "Python", "Node"])
def test_the_same_call_as_code(open_model, tmp_path, name):
    """The code prints the answer that the page has, with the values of the form."""
    program = {"curl": "curl", "Python": sys.executable, "Node": "node"}[name]
    if shutil.which(program) is None:
        pytest.fail(f"install {program}: the page shows code for it")
    page = predict_with_odd_values(open_model)
    expected = answer(page)
    code = snippet(page, name)
    if name == "Node":
        script = tmp_path / "call.mjs"
        script.write_text(code.replace("console.log(await response.json())", "console.log(await response.text())"))
        command = [program, str(script)]
    else:
        command = ["bash" if name == "curl" else program, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=60)
    if name == "Python":
        assert eval(done.stdout) == expected["predictions"]  # noqa: S307 - a literal that repr wrote.
    else:
        assert json.loads(done.stdout) == expected


@pytest.fixture(scope="session")
def programs(tmp_path_factory) -> dict[str, str]:
    """Programs that the page has commands for, with their paths."""
    grpcurl = shutil.which("grpcurl")
    assert grpcurl, "grpcurl is not on the PATH: make browser puts it there"
    return {"grpcurl": grpcurl, "buf curl": install_buf(tmp_path_factory.mktemp("buf"))}


@pytest.mark.parametrize("name", ["grpcurl", "buf curl"])
def test_the_same_call_with_grpcurl_and_buf_curl(open_model, programs, name):
    """Both print the answer that the page has, with the values of the form."""
    page = predict_with_odd_values(open_model)
    path = os.pathsep.join((str(Path(programs[name]).parent), os.environ["PATH"]))
    command = ["bash", "-c", snippet(page, name)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=60, env={**os.environ, "PATH": path}
    )
    assert json.loads(json.loads(done.stdout)["value"]) == answer(page)


def test_code_can_be_copied(browser, server):
    """The button puts the code on the clipboard, and says so."""
    context = browser.new_context(base_url=server.url, permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto("/#one_string")
    page.get_by_role("button", name="Copy").first.click()
    expect(page.get_by_role("status").first).to_contain_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == page.get_by_label("The call for curl").inner_text()
    context.close()


def test_keyboard_alone(open_model):
    """A value is typed, predicted and read as JSON without a mouse; focus is always visible."""
    page = open_model("one_string")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the model")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#model")).to_be_focused()
    for _ in range(2):  # The tabs of the form, then its first field.
        page.keyboard.press("Tab")
    expect(field(page, "q")).to_be_focused()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("typed")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").first).to_contain_text("Answered in")
    page.get_by_role("tab", name="Table").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="JSON", exact=True)).to_be_focused()
    expect(page.get_by_label("Answer as JSON")).to_contain_text("str 'typed'")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


LABELLED = """() => [...document.querySelectorAll("input, select, textarea, button")].filter((node) =>
    !(node.labels?.length || node.ariaLabel || node.textContent.trim())).map((node) => node.outerHTML)"""


@pytest.mark.parametrize("name", ["every_column", "chat_model", "params", "no_signature", "sums"])
def test_every_control_has_a_name(open_model, name):
    """Every control of the page has a name for screen readers."""
    assert open_model(name).evaluate(LABELLED) == []


CONTRASTS = """() => {
    const rgba = (text) => text.match(/[\\d.]+/g).map(Number);
    const luminance = ([red, green, blue]) => {
        const [r, g, b] = [red, green, blue].map((value) => value / 255).map((value) =>
            value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const background = (node) => {
        for (let at = node; at; at = at.parentElement) {
            const color = rgba(getComputedStyle(at).backgroundColor);
            if (color.length === 3 || color[3] === 1) return color;
        }
        return [255, 255, 255];
    };
    const result = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const node = walker.currentNode.parentElement;
        if (!walker.currentNode.textContent.trim() || !node.checkVisibility() || node.closest("option")) continue;
        const lights = [luminance(rgba(getComputedStyle(node).color)), luminance(background(node))].sort((a, b) => b - a);
        const ratio = (lights[0] + 0.05) / (lights[1] + 0.05);
        if (ratio < 4.5) result.push(`${node.textContent.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
    }
    return result;
}"""


@pytest.mark.parametrize("context_options", [{"color_scheme": "light"}, {"color_scheme": "dark"}])
def test_light_and_dark(open_model, context_options):
    """The page follows the system's choice, and each text has a contrast of 4.5 to 1 (WCAG AA), errors included."""
    page = open_model("every_column")
    field(page, "integer").fill("x")
    predict(page)
    expect(page.get_by_role("alert")).to_be_visible()
    red = int(page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]"))
    assert red < 60 if context_options["color_scheme"] == "dark" else red > 200
    assert page.evaluate(CONTRASTS) == []


@pytest.mark.parametrize("context_options", [{"color_scheme": "light"}])
@pytest.mark.parametrize("name", ["every_column", "chat_model"])
def test_a_phone_needs_no_scrolling_to_the_side(open_model, page, name):
    """At a width of 360 pixels nothing is wider than the screen."""
    page.set_viewport_size({"width": 360, "height": 740})
    open_model(name)
    predict(page)
    expect(page.locator(".answer")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_live_figures_are_those_of_the_metrics(server, open_model):
    """Calls of other clients are seen in the plots, with their rate and their latency."""
    page = open_model("one_string")
    plots = page.get_by_role("img")
    expect(plots.nth(0)).to_have_attribute("aria-label", "Calls per second: 0")
    for _ in range(20):
        requests.post(f"{server.url}/models/one_string/invocations", json={"inputs": ["a"]}, timeout=30)
    page.wait_for_function("""() => /p50 [\\d.]+ m?s, p99 [\\d.]+ m?s/.test(
        document.querySelectorAll("figure svg")[1].getAttribute("aria-label"))""")
    expect(plots.nth(2)).to_have_attribute("aria-label", "Calls waiting: 0")


def test_nothing_is_read_while_nobody_sees_the_page(page, open_model):
    """A hidden tab does not scrape; once it is visible again, it does."""
    page.add_init_script("""
        window.state = "visible";
        Object.defineProperty(document, "visibilityState", { get: () => window.state });
    """)
    page.clock.install()
    open_model("one_string")

    def scrapes():
        return page.observed.paths.count("/metrics")

    with page.expect_response("**/metrics"):
        page.clock.run_for(2500)
    page.evaluate("() => { window.state = 'hidden'; document.dispatchEvent(new Event('visibilitychange')); }")
    page.clock.run_for(100)
    before = scrapes()
    page.clock.run_for(60_000)
    assert scrapes() == before
    with page.expect_response("**/metrics"):
        page.evaluate("() => { window.state = 'visible'; document.dispatchEvent(new Event('visibilitychange')); }")
        page.clock.run_for(100)


def test_the_figures_can_be_paused(page, open_model):
    """A button stops what moves by itself (WCAG 2.2.2) and says that it is pressed; the page reads nothing meanwhile."""
    page.clock.install()
    open_model("one_string")

    def scrapes():
        return page.observed.paths.count("/metrics")

    with page.expect_response("**/metrics"):
        page.clock.run_for(2500)
    button = page.get_by_role("button", name="Pause the live figures")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    page.clock.run_for(100)
    before = scrapes()
    page.clock.run_for(60_000)
    assert scrapes() == before
    with page.expect_response("**/metrics"):
        button.click()
        page.clock.run_for(100)
    expect(button).to_have_attribute("aria-pressed", "false")
