// The token of the user, for a server that asks for one. It is only in the memory of the page.

import { element } from "./dom.js";

let token = "";
let asking = null;

/** Makes a request with the token, and asks for another one as long as the server refuses it. */
export async function fetchWithToken(path, options = {}) {
  for (;;) {
    const sent = token;
    const headers = { ...options.headers, ...(sent ? { authorization: `Bearer ${sent}` } : {}) };
    const response = await fetch(path, { ...options, headers });
    if (response.status !== 401) return response;
    if (sent === token) await askOnce(await reasonOf(response));
  }
}

/** Asks once for all requests that are refused at the same time. */
function askOnce(reason) {
  asking ??= ask(reason).finally(() => { asking = null; });
  return asking;
}

function ask(reason) {
  return new Promise((resolve) => {
    const input = element("input", { type: "password", id: "token", autocomplete: "off", required: true, pattern: "\\s*[!-~]+\\s*", title: "Letters, digits and signs without spaces", "aria-describedby": "token-reason" });
    const dialog = element("dialog", { class: "token", "aria-labelledby": "token-title", cancel: (event) => event.preventDefault() },
      element("form", { method: "dialog" },
        element("h2", { id: "token-title" }, "Token"),
        element("p", { id: "token-reason" }, reason),
        element("label", { for: "token" }, "Your token"), input,
        element("p", { class: "note" }, "The page keeps it until you reload or close it."),
        element("button", { type: "submit" }, "Continue")));
    dialog.addEventListener("close", () => {
      token = input.value.trim();
      dialog.remove();
      resolve();
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

async function reasonOf(response) {
  if (!token) return "This server needs a token.";
  try {
    return (await response.json()).message;
  } catch {
    return "The server does not accept the token.";  // A proxy may answer with HTML.
  }
}
