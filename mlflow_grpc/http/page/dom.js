// Elements of the page. Text from a server or a user becomes a text node, never HTML.

const SVG = "http://www.w3.org/2000/svg";

let lastId = 0;

/** Returns a unique element id. */
export function newId(prefix) {
  lastId += 1;
  return `${prefix}-${lastId}`;
}

/** Makes an element. Attributes that are undefined, null or false are left out; functions are event listeners. */
export function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Makes an SVG element. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** Makes the tabs of a list of panels; arrow keys change the tab, as in WAI-ARIA's tabs pattern. */
export function tabs(label, panels, onSelect = () => {}) {
  const list = element("div", { role: "tablist", "aria-label": label, class: "tabs" });
  const buttons = panels.map(({ name, panel }) => {
    panel.id ||= newId("panel");
    const button = element(
      "button",
      { type: "button", role: "tab", id: newId("tab"), "aria-controls": panel.id, click: () => select(button) },
      name,
    );
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-labelledby", button.id);
    return button;
  });

  function select(button) {
    buttons.forEach((candidate, index) => {
      const isSelected = candidate === button;
      candidate.setAttribute("aria-selected", String(isSelected));
      candidate.tabIndex = isSelected ? 0 : -1;
      panels[index].panel.hidden = !isSelected;
    });
    onSelect(panels[buttons.indexOf(button)].name);
  }

  list.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
    if (!(event.key in steps)) return;
    event.preventDefault();
    const enabled = buttons.filter((button) => !button.disabled);
    const position = enabled.indexOf(document.activeElement) + steps[event.key];
    const next = Number.isFinite(position)
      ? (position + enabled.length) % enabled.length
      : position < 0 ? 0 : enabled.length - 1;
    enabled[next].focus();
    select(enabled[next]);
  });
  list.append(...buttons);
  select(buttons[0]);
  return { list, buttons, select: (index) => select(buttons[index]) };
}

/** Makes a button that copies a text and announces it. */
export function copyButton(text, announce) {
  const button = element("button", { type: "button", class: "quiet" }, "Copy");
  button.addEventListener("click", async () => {
    await copy(text());
    button.textContent = "Copied";
    announce("Copied to the clipboard.");
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  return button;
}

async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // A page that was loaded over plain HTTP from another machine has no clipboard API.
  const area = element("textarea", { class: "hidden-copy", "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
